"""How to reach the API server and who we are there: a kubeconfig as kubectl reads it, or a pod's own account."""

import ssl
from functools import cached_property

import kopf
import kubernetes.client
import kubernetes.config

from embedfleet_operator.configuration import Configuration
from embedfleet_operator.errors import NoAccess

_TOKENS = ("BearerToken", "authorization")
"""Where the client library keeps a token: since its version 36, and before."""


class Credentials:
    """Access to one API server. Raises `NoAccess` when none is configured."""

    def __init__(self, configuration: Configuration) -> None:
        self._found = kubernetes.client.Configuration()
        try:
            _load(configuration, self._found)
        except (kubernetes.config.ConfigException, OSError) as error:
            raise NoAccess(f"no way to an API server: {error}") from error

    @property
    def url(self) -> str:
        """The API server's URL, without a slash at its end."""
        return str(self._found.host).rstrip("/")

    @property
    def headers(self) -> dict[str, str]:
        """What each request carries; a token that is about to expire is read or fetched anew."""
        found = [self._found.get_api_key_with_prefix(name) for name in _TOKENS]
        return {"Authorization": token} if (token := next(filter(None, found), None)) else {}

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Whom we trust, and our certificate where we have one."""
        context = ssl.create_default_context(cafile=self._found.ssl_ca_cert)
        if not self._found.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._found.cert_file:
            context.load_cert_chain(self._found.cert_file, self._found.key_file)
        return context

    def for_kopf(self) -> kopf.ConnectionInfo:
        """The same for kopf, which asks again when the API server no longer takes a token."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return kopf.ConnectionInfo(
            server=self.url,
            ca_path=self._found.ssl_ca_cert,
            insecure=not self._found.verify_ssl,
            scheme=scheme or None,
            token=token or None,
            certificate_path=self._found.cert_file,
            private_key_path=self._found.key_file,
        )


def _load(configuration: Configuration, into: kubernetes.client.Configuration) -> None:
    if configuration.kubeconfig is None and configuration.context is None:
        try:
            kubernetes.config.load_incluster_config(client_configuration=into)  # type: ignore[no-untyped-call]  # it has no types
        except kubernetes.config.ConfigException:  # not in a pod
            pass
        else:
            return
    file = str(configuration.kubeconfig) if configuration.kubeconfig else None
    kubernetes.config.load_kube_config(  # type: ignore[no-untyped-call]  # it has no types
        file, configuration.context, client_configuration=into, persist_config=False
    )

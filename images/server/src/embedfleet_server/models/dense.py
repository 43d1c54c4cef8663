"""Dense models: one vector per input, computed by sentence-transformers' modules called one after the other."""

from collections.abc import Callable
from typing import Any

from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from embedfleet_server.engine.protocols import Rows
from embedfleet_server.models.array_model import ArrayForward, ArrayModel
from embedfleet_server.models.compiled import Compiled, Plan, forms_of, plan_for
from embedfleet_server.models.forward import Features, Modules
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.token_vectors import TokenForward, TokenModel


class DenseModel(ArrayModel):
    """A loaded dense model: vectors."""

    _forward: "DenseForward"

    def token_vectors(self) -> TokenModel:
        """See `engine.views.GivesTokens`; `ModelProblem` unless the model's vector is the mean of its tokens'."""
        return TokenModel(self.info, self._tokenizing, self._forward.of_tokens())

    def compile(self, seconds: float) -> None:
        """Have forms made for small batches (see `compiling`); `info` says which there are, also when one is lost."""
        self.compile_as(plan_for(self._forward.device, self.info, seconds))

    def compile_as(self, plan: Plan) -> None:
        """The same by a plan."""
        forms = self._forward.compile(plan)
        forms.told = lambda: self._tell(forms)
        self._tell(forms)

    def _tell(self, forms: Compiled) -> None:
        self.info = forms.into(self.info)


class DenseForward(ArrayForward):
    """The forward of a dense model."""

    in_rows = True

    def rows(self, features: Features) -> Callable[[], Rows]:
        """Vectors."""
        return self.transfers.fetch(features["sentence_embedding"].float())

    def compile(self, plan: Plan) -> Compiled:
        """The transformer's forms, which serve from now."""
        self.compiled = Compiled(forms_of(self._modules[0], plan), plan.buckets, self._pad)
        return self.compiled

    def of_tokens(self) -> TokenForward:
        """The forward up to the pooling, over the same weights."""
        places = [place for place, module in enumerate(self._modules) if isinstance(module, Pooling)]
        if len(places) != 1 or _modes(self._modules[places[0]]) != ["mean"]:
            raise ModelProblem(
                "late chunking needs a model that takes the mean of its tokens' vectors, which this is not"
            )
        if any(not isinstance(module, Normalize) for module in self._modules[places[0] + 1 :]):
            raise ModelProblem("late chunking needs a model with no layer after its pooling, and this has one")
        if self.packed is not None and places[0] != 1:
            raise ModelProblem("late chunking needs a pooling right behind the transformer, which this has not")
        before, device = self._modules[: places[0]], str(self._device)
        made = TokenForward(before, device=device, pad=self._pad, limits=self._limits, packed=self.packed)
        made.lanes = self.lanes
        return made


def _modes(pooling: Any) -> list[str]:
    """How sentence-transformers' module pools."""
    mode = pooling.pooling_mode
    return [mode] if isinstance(mode, str) else list(mode)


def normalizes(modules: Modules) -> bool:
    """Whether the last of the modules gives vectors length 1."""
    last = modules[-1]
    return isinstance(last, Normalize) and last.module_output_name == "sentence_embedding"

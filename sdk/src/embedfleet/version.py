from importlib.metadata import version

__version__ = version("embedfleet")
"""Version of the installed distribution."""

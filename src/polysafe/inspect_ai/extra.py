"""Whether Inspect is installed."""

from __future__ import annotations

from importlib.util import find_spec

from polysafe.errors import ResourceError


def require_inspect(*, wanted: bool = True) -> None:
    """Refuses to begin what could not end without Inspect.

    Args:
        wanted: Whether Inspect is needed at all.

    Raises:
        ResourceError: The extra is not installed.
    """
    if wanted and find_spec("inspect_ai") is None:
        raise ResourceError("Inspect logs need the package inspect_ai", remedy="pip install 'polysafe[inspect]'")

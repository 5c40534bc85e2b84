"""Checks of the sizes that the builders take."""


def at_least_one(place: str, **sizes: int) -> None:
    """Check that every size is a whole number of at least one.

    Args:
        place: Who asks, as the user wrote it.
        sizes: The sizes, by argument name.

    Raises:
        ValueError: If one is smaller.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{place}: {name} must be at least 1, got {size}")

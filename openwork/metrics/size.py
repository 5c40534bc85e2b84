"""How much memory a model takes."""

from collections import defaultdict

from torch import Tensor, nn


def size_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers of ``model``; tensors that share storage count once.

    Args:
        model: Any module, on any device.

    Returns:
        The bytes of the entries themselves: of a storage that is only partly seen, the part that is seen.
    """
    # A tied weight may be one parameter under two names, or two parameters over the same entries, transposed perhaps.
    views: defaultdict[object, dict[object, Tensor]] = defaultdict(dict)
    for tensor in (*model.parameters(), *model.buffers()):
        storage = tensor.untyped_storage()
        # Without data, as on the meta device, there is no address to tell storages apart by.
        shared = (tensor.device, storage.data_ptr()) if storage.data_ptr() else id(tensor)
        views[shared][tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype] = tensor
    return sum(
        min(sum(view.nbytes for view in of_one.values()), next(iter(of_one.values())).untyped_storage().nbytes())
        for of_one in views.values()
    )

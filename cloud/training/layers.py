"""Layers of an exported screener: the units that are quantised to INT8 or stay in float."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

_PRODUCTS = {"Conv", "Gemm", "MatMul"}
_WHITENING = "whitening"  # part of the names of an encoder's parameters
_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class Layer:
    """A matrix product (convolution or linear layer) and the operations on its result before the next product.

    Attributes:
        name: Name of its weights.
        nodes: Names of its nodes and of their outputs; OpenVINO names the last node of a graph after its output.
        may_be_int8: Whether it may be quantised. Layers that whiten stay in float, because they enlarge small
            differences. So do layers that read whitened values, which have long tails, and the last layer of each
            head: scores of anomalies exceed the range that normal samples set.
    """

    name: str
    nodes: frozenset[str]
    may_be_int8: bool


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers of a graph, in order.

    `unowned`: names, as in `Layer.nodes`, of nodes after the last layer of a head, or of none. They stay in float.
    """

    all: tuple[Layer, ...]
    unowned: frozenset[str]

    @classmethod
    def of(cls, model: bytes) -> Self:
        """Return the layers of an ONNX model."""
        import onnx

        nodes = onnx.load_from_string(model).graph.node
        products = [index for index, node in enumerate(nodes) if node.op_type in _PRODUCTS]
        owners, last = _owners(nodes), _after_the_last_products(nodes)
        kept = {*_around_whitening(nodes, products), *last}
        layers: dict[str, Layer] = {}
        for at in products:
            layer = Layer(_name(nodes[at]), _names(nodes, owners, at), at not in kept)
            same = layers.get(layer.name, layer)  # weights that are used twice are one layer
            both = same.may_be_int8 and layer.may_be_int8
            layers[layer.name] = Layer(layer.name, same.nodes | layer.nodes, both)
        return cls(
            tuple(layers.values()), frozenset(name for at in last for name in (nodes[at].name, *nodes[at].output))
        )

    def in_float(self, names: Collection[str]) -> tuple[Layer, ...]:
        """Return the layers in float: those of `names`, and those that must not be quantised."""
        return tuple(layer for layer in self.all if layer.name in names or not layer.may_be_int8)

    def nodes_in_float(self, names: Collection[str]) -> frozenset[str]:
        """Return the names of the nodes of these layers and of the nodes without a layer."""
        return self.unowned.union(*(layer.nodes for layer in self.in_float(names)))


def _owners(nodes: Sequence[Any]) -> list[int | None]:
    """Return for each node the position of the product that its layer belongs to.

    This is the last product before it, or the first after it if there is none before.
    """
    before: dict[str, int] = {}
    for index, node in enumerate(nodes):
        found = index if node.op_type in _PRODUCTS else max((before.get(name, -1) for name in node.input), default=-1)
        before.update(dict.fromkeys(node.output, found))
    after: dict[str, int] = {}
    owners: list[int | None] = [None] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        following = [after[name] for name in node.output if name in after]
        first = index if node.op_type in _PRODUCTS else min(following, default=None)
        if first is not None:
            after.update({name: min(first, after.get(name, first)) for name in node.input})
        own = before[node.output[0]]
        owners[index] = own if own >= 0 else first
    return owners


def _names(nodes: Sequence[Any], owners: Sequence[int | None], product: int) -> frozenset[str]:
    own = [node for node, owner in zip(nodes, owners, strict=True) if owner == product]
    return frozenset(name for node in own for name in (node.name, *node.output))


def _name(product: Any) -> str:
    """Return the name of the product's weights without the suffix, or of the node if no input is called so."""
    weights = [name for name in product.input if name.endswith(_WEIGHT)]
    return (weights[0].removesuffix(_WEIGHT) if weights else str(product.name)).removesuffix(".conv")


def _around_whitening(nodes: Sequence[Any], products: Sequence[int]) -> set[int]:
    whitening = [index for index in products if any(_WHITENING in name for name in nodes[index].input)]
    whitened = {name for index in whitening for name in nodes[index].output}
    return {*whitening, *(index for index in products if nodes[index].input[0] in whitened)}


def _after_the_last_products(nodes: Sequence[Any]) -> list[int]:
    """Return the positions of the nodes that no later matrix product depends on: each head's last, and those after."""
    leading: set[str] = set()  # to a product
    last = []
    for index in range(len(nodes) - 1, -1, -1):
        leads = any(name in leading for name in nodes[index].output)
        if not leads:
            last.append(index)
        if leads or nodes[index].op_type in _PRODUCTS:
            leading.update(nodes[index].input)
    return last

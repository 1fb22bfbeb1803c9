"""The layers of an exported screener: what stays in float, or becomes INT8, as one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

_PRODUCTS = {"Conv", "Gemm", "MatMul"}
_WHITENING = "whitening"  # in the names of an encoder's parameters
_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class Layer:
    """A matrix product (convolution or linear layer) and what is done with its result before the next one.

    `name`: of its weights. `nodes`: names of its nodes and of what they put out, since OpenVINO knows a node by that
    where it is an output of the graph. `may_be_int8`: not those that whiten, which make small differences large, those
    that read what was whitened, whose rare values are far out, and the last of each head: the range of a score is not
    that of normal samples.
    """

    name: str
    nodes: frozenset[str]
    may_be_int8: bool


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a graph, in order. `beside`: names, as of `Layer.nodes`, of what comes after the last of a head or
    belongs to none, and is not quantised either."""

    all: tuple[Layer, ...]
    beside: frozenset[str]

    @classmethod
    def of(cls, model: bytes) -> Self:
        """The layers of an ONNX model."""
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
        """The layers that are not quantised where those of `names` stay in float, too."""
        return tuple(layer for layer in self.all if layer.name in names or not layer.may_be_int8)

    def nodes_in_float(self, names: Collection[str]) -> frozenset[str]:
        """The nodes of these layers, and those beside, as of `Layer.nodes`."""
        return self.beside.union(*(layer.nodes for layer in self.in_float(names)))


def _owners(nodes: Sequence[Any]) -> list[int | None]:
    """Of each node the position of the product whose layer it is part of: the last one before it, or the first after
    it where there is none before."""
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
    """Of the parameter that it multiplies by, without its ending; the node's own where no input has such a name."""
    weights = [name for name in product.input if name.endswith(_WEIGHT)]
    return (weights[0].removesuffix(_WEIGHT) if weights else str(product.name)).removesuffix(".conv")


def _around_whitening(nodes: Sequence[Any], products: Sequence[int]) -> set[int]:
    whitening = [index for index in products if any(_WHITENING in name for name in nodes[index].input)]
    whitened = {name for index in whitening for name in nodes[index].output}
    return {*whitening, *(index for index in products if nodes[index].input[0] in whitened)}


def _after_the_last_products(nodes: Sequence[Any]) -> list[int]:
    """Positions of the nodes from whose outputs no matrix product is reached: of each head the last one, and after."""
    leading: set[str] = set()  # to a product
    last = []
    for index in range(len(nodes) - 1, -1, -1):
        leads = any(name in leading for name in nodes[index].output)
        if not leads:
            last.append(index)
        if leads or nodes[index].op_type in _PRODUCTS:
            leading.update(nodes[index].input)
    return last

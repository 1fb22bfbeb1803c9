"""A front before the graph of an artefact: what turns engine inputs into graph inputs, in float, in the same file.

The graph behind it is exported and quantised alone, so its eight bits know nothing of the front.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.encoders import SeriesViews
from cloud.training.engines import Runner
from cloud.training.export import INPUT_NAME, export_onnx
from shared.errors import EngineError

_PREFIX = "front/"
TRIED, LEAST_CORRELATION = 256, 0.999  # rounding may move a value to the next of its 256 steps


class Front:
    """A module, exported once for all artefacts."""

    def __init__(self, module: SeriesViews) -> None:
        self._module = module
        self._model = export_onnx(module)

    def before_onnx(self, model: bytes) -> bytes:
        """An ONNX model that takes engine inputs, of one that takes graph inputs."""
        import onnx
        from onnx import compose

        front, rest = onnx.load_from_string(self._model), onnx.load_from_string(model)
        front = compose.add_prefix(front, _PREFIX, rename_inputs=False, rename_outputs=False)
        front.ir_version = rest.ir_version = max(front.ir_version, rest.ir_version)
        # The quantiser names domains that it does not use.
        versions = {one.domain: one.version for one in (*front.opset_import, *rest.opset_import)}
        for one in (front, rest):
            del one.opset_import[:]
            one.opset_import.extend(onnx.helper.make_opsetid(*pair) for pair in versions.items())
        (made,) = self._module.output_names
        rest = _with_input(rest, made)
        joined = compose.merge_models(front, rest, io_map=[(made, made)], name=rest.graph.name)
        data: bytes = joined.SerializeToString()
        return data

    def before_openvino(self, ir: Mapping[str, bytes]) -> dict[str, bytes]:
        """The same of an OpenVINO IR, the bytes of its ".xml" and ".bin"."""
        import openvino

        with tempfile.TemporaryDirectory(prefix="vedette-front-") as folder:
            for suffix, data in ir.items():
                (Path(folder) / f"rest{suffix}").write_bytes(data)
            core = openvino.Core()
            front, rest = core.read_model(self._model, b""), core.read_model(Path(folder) / "rest.xml")
            made = front.results[0].input(0).get_source_output()
            for target in rest.input(0).get_target_inputs():
                target.replace_source_output(made)
            joined = openvino.Model(rest.results, front.get_parameters(), rest.get_friendly_name())
            target_path = Path(folder) / "joined.xml"
            openvino.save_model(joined, target_path, compress_to_fp16=False)
            return {suffix: target_path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}

    def check(self, name: str, rest: Runner, joined: Runner) -> None:
        """Raise EngineError unless the joined artefact says of made-up engine inputs what its graph says of theirs."""
        inputs = self._made_up()
        with torch.inference_mode():
            graph_inputs = self._module(torch.from_numpy(inputs)).numpy()
        expected, found = rest(graph_inputs)["score"], joined(inputs)["score"]
        correlation = np.corrcoef(expected.astype(np.float64), found.astype(np.float64))[0, 1]
        if not correlation >= LEAST_CORRELATION:
            raise EngineError(
                f"{name}: with its front before it the graph says something else (correlation {correlation:.4f}, and "
                f"at least {LEAST_CORRELATION} is expected). Report it with the versions of the engines installed."
            )

    def _made_up(self) -> NDArray[np.float32]:
        module, random = self._module, np.random.default_rng(0)
        inputs = random.standard_normal((TRIED, module.width)).astype(np.float32)
        if not module.missing:
            inputs[:, : module.values] = inputs[:, : module.values] * module.scale.numpy() + module.mean.numpy()
        inputs[:, module.values :] = inputs[:, module.values :] > 0.0
        return inputs


def _with_input(model: Any, name: str) -> Any:
    """The ONNX model with another name for its input."""
    for node in model.graph.node:
        for index, one in enumerate(node.input):
            if one == INPUT_NAME:
                node.input[index] = name
    model.graph.input[0].name = name
    return model

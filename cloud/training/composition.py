"""Input stage of an artefact's graph: it turns engine inputs into graph inputs, in float, in the same file.

The graph behind it is exported and quantised alone, so the ranges of its INT8 values do not depend on the input stage.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud.training.export import INPUT_NAME, export_onnx
from cloud.training.screeners import SeriesViews

_PREFIX = "views/"


class InputStage:
    """Views of windows as a graph, to prepend to the graphs of several artefacts."""

    def __init__(self, views: SeriesViews) -> None:
        self._model = export_onnx(views)
        (self._made,) = views.output_names

    def before_onnx(self, model: bytes) -> bytes:
        """Return the ONNX model with the input stage before it: it takes engine inputs instead of graph inputs."""
        import onnx
        from onnx import compose

        first, rest = onnx.load_from_string(self._model), onnx.load_from_string(model)
        first = compose.add_prefix(first, _PREFIX, rename_inputs=False, rename_outputs=False)
        first.ir_version = rest.ir_version = max(first.ir_version, rest.ir_version)
        for one, other in (
            (first, rest),
            (rest, first),
        ):  # the quantiser imports domains that it does not use
            known = {opset.domain for opset in one.opset_import}
            one.opset_import.extend(opset for opset in other.opset_import if opset.domain not in known)
        rest = _with_input(rest, self._made)
        joined = compose.merge_models(first, rest, io_map=[(self._made, self._made)], name=rest.graph.name)
        data: bytes = joined.SerializeToString()
        return data

    def before_openvino(self, ir: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the OpenVINO IR, as the bytes of ".xml" and ".bin", with the input stage before it."""
        import openvino

        with tempfile.TemporaryDirectory(prefix="vedette-stage-") as folder:
            for suffix, data in ir.items():
                (Path(folder) / f"rest{suffix}").write_bytes(data)
            core = openvino.Core()
            first, rest = core.read_model(self._model, b""), core.read_model(Path(folder) / "rest.xml")
            made = first.results[0].input(0).get_source_output()
            for target in rest.input(0).get_target_inputs():
                target.replace_source_output(made)
            joined = openvino.Model(rest.results, first.get_parameters(), rest.get_friendly_name())
            target_path = Path(folder) / "joined.xml"
            openvino.save_model(joined, target_path, compress_to_fp16=False)
            return {suffix: target_path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}


def _with_input(model: Any, name: str) -> Any:
    """Return the ONNX model with its input renamed."""
    for node in model.graph.node:
        for index, one in enumerate(node.input):
            if one == INPUT_NAME:
                node.input[index] = name
    model.graph.input[0].name = name
    return model

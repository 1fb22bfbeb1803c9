"""Choice of the PyTorch device that analyzers run on, and compilation for it."""

from collections.abc import Mapping

import torch

from cloud.methods import Analyzer, AnyAnalyzer
from shared.errors import SettingsError


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first CUDA device, else the CPU.

    On CUDA, TF32 is switched off, so that scores agree with those of the CPU. Raises SettingsError for a device that
    cannot be used.
    """
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        advice = 'set "cpu"' if name == "auto" else 'set "auto" or "cpu"'
        raise SettingsError(f"Device {name!r} cannot be used ({reason}): {advice}.") from None
    if device.type == "cuda":
        # TF32 is PyTorch's default for convolutions on CUDA. With it, p-values were up to 1.7 times those of a CPU, on
        # which a bundle may have been calibrated (docs/benchmarks/analysis_device.md).
        torch.backends.cudnn.allow_tf32 = False
    return device


def compile_denoisers(analyzers: Mapping[str, AnyAnalyzer]) -> None:
    """Let the analyzers run their denoisers compiled for their device, from the first call on.

    A network that cannot be compiled runs as before.
    """
    torch._dynamo.config.suppress_errors = True
    for analyzer in analyzers.values():
        for denoiser in analyzer.denoisers if isinstance(analyzer, Analyzer) else ():
            denoiser.compile_network()

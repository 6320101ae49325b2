"""Opening ONNX files: what the judges that are ONNX files share."""

import os
from pathlib import Path
from typing import Any

from faceage.errors import ConfigError, WeightsError


def open_session(path: Path, judge: str, hint: str) -> Any:
    """An onnxruntime session on the CPU: the same figures on every machine.

    Args:
        path: the ONNX file.
        judge: what it is, for the errors: "age judge".
        hint: what to do about a wrong file.

    Raises:
        ConfigError: onnxruntime is not installed.
        WeightsError: the file is missing or damaged.
    """
    if not path.is_file():
        raise WeightsError(f"No {judge} {path}.", hint)
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(
            f"The {judge} needs onnxruntime, which is not installed.",
            "Install it with: pip install 'faceage[evaluate]'",
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # onnxruntime has threads of its own, which do not heed this variable; 0 is its own choice.
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdigit() else 0
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each fault has a class of its own, all private
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(f"{path} is not a readable ONNX file ({reason}).", hint) from None

"""Rows as Parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from faceage.scale.optional import import_optional

ROWS = 5000  # in a row group; bounds the memory
_TYPES = {str: "string", int: "int32", float: "float64"}


class ParquetFile:
    """A Parquet file, written row by row; a context manager.

    The same rows give the same bytes with the same version of pyarrow.

    Args:
        columns: their names and types: str, int or float. A missing value is null.

    Raises:
        ConfigError: pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self._pyarrow = import_optional("pyarrow", "scale")
        parquet = import_optional("pyarrow.parquet", "scale")
        fields = [(name, self._pyarrow.type_for_alias(_TYPES[t])) for name, t in columns.items()]
        self._schema = self._pyarrow.schema(fields)
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; keys that are no column are ignored."""
        self._rows += rows
        if len(self._rows) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(
                self._pyarrow.Table.from_pylist(self._rows, schema=self._schema)
            )
        self._rows = []

    def __enter__(self) -> "ParquetFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()

"""The tables of a run as Arrow schemas: one place for every column, its type and its unit.

``metrics`` and ``measurements`` are long (a row per value); ``gradients`` is wide (a row per
update, member, player, tensor and tap), because long costs twenty times the rows. Names are
dictionary-encoded; a quantity that was not measured is null, a measured NaN stays NaN.
"""

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

QUANTITIES: Final = (
    "norm",
    "mean_abs",
    "max_abs",
    "zero_share",
    "nonfinite",
    "parameter_norm",
    "ratio",
    "cosine_previous",
    "alignment",
    "learning_rate",
    "clip_coefficient",
)
"""Float32 columns of ``gradients``; null where not measured."""

NAME: Final = pa.dictionary(pa.int32(), pa.string())

TABLES: Final[dict[str, pa.Schema]] = {
    "metrics": pa.schema(
        {
            "iteration": pa.int64(),
            "updates": pa.int64(),
            "samples": pa.int64(),
            "env_steps": pa.int64(),
            "gradient_evaluations": pa.int64(),
            "seconds": pa.float64(),
            "member": pa.int32(),
            "player": NAME,
            "name": NAME,
            "value": pa.float64(),
            "stderr": pa.float64(),
        }
    ),
    "gradients": pa.schema(
        {
            "iteration": pa.int64(),
            "update": pa.int64(),
            "member": pa.int32(),
            "player": NAME,
            "tensor": NAME,
            "round": pa.int64(),
            "tap": NAME,
            **dict.fromkeys(QUANTITIES, pa.float32()),
        }
    ),
    "measurements": pa.schema(
        {
            "iteration": pa.int64(),
            "update": pa.int64(),
            "member": pa.int32(),
            "player": NAME,
            "tensor": NAME,
            "probe": NAME,
            "quantity": NAME,
            "value": pa.float64(),
            "stderr": pa.float64(),
            "cost_ms": pa.float64(),
        }
    ),
    "events": pa.schema(
        {
            "iteration": pa.int64(),
            "member": pa.int32(),
            "kind": NAME,
            "message": pa.string(),
            "evidence": pa.string(),
        }
    ),
}
"""{table: schema}, columns in stored order."""

"""p-values of "the mean loss is above delta", from n losses in [0, 1].

Each file has ``p_value(losses, delta) -> float`` and a ``P_VALUE``
(:class:`eexit_cli.calibration.p_values.base.PValue`), which also does whole matrices at once.
Add one: a file and a line here; ``tests/contracts`` then holds it to what every p-value owes.
The last three are for comparison: their promise is weaker, and they say so.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

P_VALUES = Catalog(
    "p-value",
    {
        "hoeffding-bentkus": "eexit_cli.calibration.p_values.hoeffding_bentkus:P_VALUE",
        "hoeffding": "eexit_cli.calibration.p_values.hoeffding:P_VALUE",
        "binomial": "eexit_cli.calibration.p_values.binomial:P_VALUE",
        "betting": "eexit_cli.calibration.p_values.betting:P_VALUE",
        "clt": "eexit_cli.calibration.p_values.clt:P_VALUE",
        "conformal": "eexit_cli.calibration.p_values.conformal:P_VALUE",
        "naive": "eexit_cli.calibration.p_values.naive:P_VALUE",
    },
    aliases={
        "hb": "hoeffding-bentkus",
        "wsr": "betting",
        "conformal-risk-control": "conformal",
        "crc": "conformal",
    },
    plugins="eexit.p_values",
    needs=("promise", "p_values", "all_zero"),
)

"""Hospital stays: panels of measurements that share their time.

``patient_id, timestamp, code, value, unit``: a stay lasts days, panels are taken together, mostly
in the early morning. A patient has a level of each measurement that drifts slowly; some wards
report in other units; new assays appear late in the period. Base excess can be negative.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import polars as pl

from domainformer.data.simulation.draws import Draws, bell, zipf_rank
from domainformer.data.simulation.timeline import ANCHOR, BURST, EXPLORE, Rhythm, Timeline

ENTITY, TIME = "patient_id", "timestamp"
CATEGORIES = 40
RHYTHM = Rhythm(
    hours=(3, 2, 2, 3, 6, 10, 12, 8, 6, 5, 5, 5, 6, 5, 5, 5, 6, 6, 6, 5, 5, 4, 4, 3),
    weekdays=(1.05, 1.05, 1.05, 1.0, 1.0, 0.9, 0.95),
    months=(1.25, 1.15, 1.05, 1.0, 0.95, 0.9, 0.85, 0.85, 0.95, 1.0, 1.05, 1.2),
    resolution=60,
    tie=0.7,
    monthly=False,
    hours_per_event=1.2,
)
#: code, unit, mean, standard deviation, factor to the other unit (0: there is none)
_CODES: tuple[tuple[str, str, float, float, float], ...] = (
    ("Heart rate", "bpm", 85, 17, 0),
    ("Systolic pressure", "mmHg", 121, 21, 0),
    ("Diastolic pressure", "mmHg", 66, 12, 0),
    ("Respiratory rate", "per min", 19, 5, 0),
    ("Temperature", "C", 37.0, 0.7, 0),
    ("Oxygen saturation", "%", 96.5, 2.5, 0),
    ("Glucose", "mg/dL", 138, 45, 0.0555),
    ("Sodium", "mmol/L", 139, 4.5, 0),
    ("Potassium", "mmol/L", 4.2, 0.6, 0),
    ("Chloride", "mmol/L", 104, 5.5, 0),
    ("Bicarbonate", "mmol/L", 24, 4.2, 0),
    ("Urea", "mg/dL", 26, 17, 0.357),
    ("Creatinine", "mg/dL", 1.3, 0.9, 88.4),
    ("Calcium", "mg/dL", 8.5, 0.7, 0.25),
    ("Magnesium", "mg/dL", 2.0, 0.3, 0.411),
    ("Phosphate", "mg/dL", 3.6, 1.1, 0.323),
    ("Haemoglobin", "g/dL", 10.6, 1.9, 10.0),
    ("Haematocrit", "%", 32, 5.5, 0),
    ("White cells", "10^9/L", 11, 5.5, 0),
    ("Platelets", "10^9/L", 210, 95, 0),
    ("pH", "", 7.38, 0.07, 0),
    ("pCO2", "mmHg", 41, 9, 0),
    ("pO2", "mmHg", 120, 55, 0),
    ("Base excess", "mmol/L", -0.8, 4.2, 0),
    ("Bilirubin", "mg/dL", 1.3, 1.9, 17.1),
    ("ALT", "U/L", 60, 80, 0),
    ("AST", "U/L", 70, 85, 0),
    ("Alkaline phosphatase", "U/L", 105, 65, 0),
    ("Albumin", "g/dL", 3.1, 0.6, 10.0),
    ("Total protein", "g/dL", 6.1, 0.8, 10.0),
    ("INR", "", 1.4, 0.5, 0),
    ("PTT", "s", 38, 15, 0),
    ("Fibrinogen", "mg/dL", 310, 120, 0),
    ("C-reactive protein", "mg/L", 85, 75, 0),
    ("Troponin", "ng/L", 55, 110, 0),
    ("Urine output", "mL", 110, 80, 0),
    ("Coma score", "points", 12, 3, 0),
    ("Weight", "kg", 81, 19, 0),
    ("Inspired oxygen", "%", 45, 17, 0),
    ("Tidal volume", "mL", 480, 90, 0),
)
_OTHER_UNITS = {
    "Glucose": "mmol/L",
    "Urea": "mmol/L",
    "Creatinine": "umol/L",
    "Bilirubin": "umol/L",
    "Haemoglobin": "g/L",
    "Albumin": "g/L",
    "Total protein": "g/L",
}
_SPECIAL: tuple[tuple[str, str, float, float, float], ...] = (
    ("Vasopressor start", "ug/kg/min", 0.15, 0.06, 0),
    ("Lactate", "mmol/L", 5.2, 1.6, 0),
    ("Procalcitonin rapid assay", "ug/L", 2.5, 2.0, 0),
    ("Cell-free DNA", "ng/mL", 14, 6, 0),
    ("Ammonia", "umol/L", 45, 25, 0),
)
_FIRST_NEW, _RARE = 2, 4


@dataclass(frozen=True)
class World:
    """What the hospital measures, in which units, and what is usual."""

    codes: pl.Series
    units: pl.Series
    mean: np.ndarray
    deviation: np.ndarray
    factor: np.ndarray


@functools.lru_cache(maxsize=4)
def world(seed: int, categories: int) -> World:
    """The measurements; beyond the named 40 come further analytes with random levels."""
    extra = max(0, categories - len(_CODES))
    level = np.exp(4 * Draws(seed, "health world").uniform("level", np.arange(max(extra, 1))))
    further = [(f"Analyte {i + 1}", "U/L", level[i], level[i] / 4, 0.0) for i in range(extra)]
    rows = [*_CODES[:categories], *further, *_SPECIAL]
    units = [row[1] for row in rows] + [_OTHER_UNITS.get(row[0], "mmol/L") for row in rows]
    numbers = np.array([row[2:] for row in rows], dtype=np.float64).T
    return World(pl.Series([row[0] for row in rows]), pl.Series(units), *numbers)


def columns(timeline: Timeline, seed: int, categories: int) -> dict[str, pl.Series]:
    """The columns of one block of measurements, without entity, time and label."""
    shared = world(seed, categories)
    code = _code(timeline, categories)
    level = 0.7 * bell(timeline.of_entity_and("level", code))
    phase = timeline.of_entity_and("phase", code) + timeline.step / 60.0
    spread = level + 0.4 * np.sin(2 * np.pi * phase) + 0.35 * bell(timeline.uniform("value"))
    mean, deviation = shared.mean[code], shared.deviation[code]
    value = mean + deviation * spread
    # What cannot be negative is folded back to a small amount.
    value = np.where((value <= 0) & (mean > 0), mean * 0.05, value)
    factor = shared.factor[code]
    other = (factor > 0) & (timeline.of_entity("ward") < 0.12)
    value = np.where(other, value * factor, value)
    digits = 10.0 ** np.clip(2 - np.floor(np.log10(np.abs(value) + 1e-9)), 0, 3)
    blank = timeline.uniform("blank")
    unit = shared.units.gather(code + np.where(other, len(shared.codes), 0))
    return {
        "code": shared.codes.gather(code),
        "value": pl.Series(np.round(value * digits) / digits).set(pl.Series(blank < 0.02), None),
        "unit": unit.set((unit == "") | pl.Series(blank > 0.99), None),
    }


def _code(timeline: Timeline, categories: int) -> np.ndarray:
    rank = zipf_rank(timeline.uniform("explore"), categories)
    explores = timeline.kind == EXPLORE
    code = np.where(explores, rank, timeline.activity)
    exotic = timeline.uniform("exotic")
    new = explores & timeline.late & (exotic > 0.85)
    code[new] = categories + _FIRST_NEW + (exotic[new] > 0.92)
    code[explores & (exotic < 0.004)] = categories + _RARE
    code[timeline.kind == ANCHOR] = categories
    code[timeline.kind == BURST] = categories + 1
    return code

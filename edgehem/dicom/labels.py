"""What a header's words say: body part, contrast, kind of image. Missing words say nothing, and are normal."""

from __future__ import annotations

import re

from edgehem.dicom.header import Header

_WORDS = re.compile(r"[A-Z]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORDS.findall(text.upper().replace("Ä", "AE")))


# Words in which scanners and technologists name body parts, in the languages met most; compared as whole words.
_HEAD = _words(
    "HEAD BRAIN SKULL CRANIUM CRANIAL CEREBRAL CEREBRUM NEURO STROKE CCT NCCT KOPF SCHAEDEL CRANE CRANEO CEREBRO "
    "ENCEPHALE CABEZA TETE TESTA CRANIO ENCEFALO"
)
_ELSEWHERE = _words(
    "CHEST THORAX THORACIC LUNG LUNGS ABDOMEN ABDOMINAL ABD PELVIS SPINE LSPINE CSPINE TSPINE SSPINE LUMBAR NECK "
    "HEART CARDIAC CORONARY AORTA LIVER PANCREAS KIDNEY RENAL KUB COLON BLADDER UROGRAPHY HIP FEMUR KNEE TIBIA LEG "
    "ANKLE FOOT SHOULDER CLAVICLE HUMERUS ARM ELBOW FOREARM WRIST HAND EXTREMITY BREAST PROSTATE"
)

_NO_AGENT = re.compile(r"\s*(NONE|NO|NIL|N/?A|0|-+|WITHOUT|W/?O|NATIVE?|NOT APPLICABLE|NO CONTRAST)?\s*", re.IGNORECASE)
# "Without contrast" in its many spellings: taken out of a description before looking for contrast in the rest.
_PLAIN = re.compile(
    r"NCCT|\bC-(?!\w)|(?<!\w)-C\b|"
    r"(\bW\s*/?\s*O\b|\b(UNENHANCED|NATIVE?|NON|NO|PRE|OHNE|SANS|SIN|WITHOUT)\b)"
    r"[\s_-]*(IV|I\.V\.|THE)?[\s_-]*(CONTRASTE?|CON|CE|KM|INJECTION|INJ|C)?\b",
    re.IGNORECASE,
)
_BOTH = re.compile(r"\bW(ITH)?\s*(/|AND|&|\+)\s*W(ITH|/)?O(UT)?\b", re.IGNORECASE)
_ENHANCED = re.compile(
    r"\b(CTA|CTV|CTP|CECT|ANGIO\w*|VENO(GRAM|GRAPHY|US)|PERF\w*|ENHANCED|CONTRASTE?|KM|INJECTION|POST[\s_-]*C|"
    r"POST[\s_-]*(CON|GAD)\w*|W(ITH|/)?\s*(IV\s*)?CON|ARTERIAL|DELAYED|BOLUS|MONITORING)\b|\bC\+|\+\s*C\b",
    re.IGNORECASE,
)
_SCOUT = re.compile(r"\b(SCOUT|TOPOGRAM\w*|SURVIEW|LOCALI[SZ]ER|SCANOGRAM|SCANO|PILOT)\b", re.IGNORECASE)
_DOSE = re.compile(r"\b(DOSE|PATIENT PROTOCOL|SCREEN SAVE)\b", re.IGNORECASE)
_REFORMAT = re.compile(r"\b(MPR|MIP|MINIP|VRT|3D|SSD|REFORMAT\w*|CURVED)\b", re.IGNORECASE)

_REFORMAT_TYPES = frozenset({"MPR", "MIP", "MINIP", "REFORMATTED", "PROJECTION IMAGE", "VRT", "VOLREN", "CSA MPR"})

_SHARP_SIEMENS = re.compile(r"[A-Z]{1,2}r?(\d\d)[a-z]?\b")
_SHARP_CANON = re.compile(r"FC(\d\d)\b")
_SHARP_NAMES = re.compile(r"BONE|EDGE|LUNG|SHARP|DETAIL|^Y[CDE]$", re.IGNORECASE)
SHARP_SIEMENS_FROM = 50
"""Siemens kernels (H31s, J70h, Hr60): the number rises with sharpness; head soft-tissue kernels lie in 20-45."""
SHARP_CANON = range(30, 40)
"""Canon/Toshiba FC30-FC39: bone kernels."""


def names_another_body_part(header: Header) -> bool:
    """Whether the header clearly says that this is not a head.

    Body Part Examined decides where it names one; else the descriptions of series and study do. A text that names a
    head as well (``HEAD AND NECK``, a whole-body trauma scan) is not clear.
    """
    for text in (header.body_part, header.series_description, header.study_description):
        words = _words(text)
        if words & _HEAD:
            return False
        if words & _ELSEWHERE:
            return True
    return False


def has_contrast(header: Header) -> bool:
    """Whether contrast was given, by its own tags or by the series' description."""
    if not _NO_AGENT.fullmatch(header.contrast_agent) or header.contrast_sequence:
        return True
    text = header.series_description
    return bool(_BOTH.search(text) or _ENHANCED.search(_PLAIN.sub(" ", text)))


def is_localizer(header: Header) -> bool:
    """Whether the image is a scout view."""
    return "LOCALIZER" in header.image_type or bool(_SCOUT.search(header.series_description))


def is_dose_page(header: Header) -> bool:
    """Whether the image is a picture of a dose table or protocol."""
    return "SCREEN SAVE" in header.image_type or bool(_DOSE.search(header.series_description))


def is_derived(header: Header) -> bool:
    """Whether the image was computed from others (reformat, projection), not reconstructed from the scan.

    Lossy compression also makes an image DERIVED (PS3.3 C.7.6.1.1.5); such a one is still the scan.
    """
    kinds = header.image_type
    if any(kind in _REFORMAT_TYPES or kind.endswith(" MPR") for kind in kinds):
        return True
    if _REFORMAT.search(header.series_description):
        return True
    # Of a frame, the fourth value tells what was computed: a maximum, a mean, a virtual energy (C.8.16.1.4).
    if header.frame >= 0 and any(kind != "NONE" for kind in kinds[3:4] if kind):
        return True
    return kinds[0] == "DERIVED" and (header.lossy != "01" or "SECONDARY" in kinds)


def is_sharp(header: Header) -> bool:
    """Whether the reconstruction kernel is one for bone. Unknown kernels are taken as soft."""
    kernel = header.kernel.split("\\")[0].strip()
    if match := _SHARP_CANON.match(kernel):
        return int(match[1]) in SHARP_CANON
    if match := _SHARP_SIEMENS.match(kernel):
        return int(match[1]) >= SHARP_SIEMENS_FROM
    return bool(_SHARP_NAMES.search(kernel)) or bool(re.search(r"\bBONE\b", header.series_description, re.IGNORECASE))

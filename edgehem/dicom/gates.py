"""The gates that look at pixels, in order: Hounsfield units, a head, every slice in its place, and what spoils it."""

from __future__ import annotations

from edgehem.dicom.anatomy import USUAL_BRAIN_HU, refuse_other_than_head
from edgehem.dicom.continuity import refuse_interrupted
from edgehem.dicom.hu import USUAL_AIR_HU, refuse_implausible
from edgehem.dicom.vault import vault_notes
from edgehem.errors import Code
from edgehem.result import Note
from edgehem.volume import Volume


def pass_gates(volume: Volume) -> list[Note]:
    """Look at the pixels of a stack.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    list of Note
        What a person should know about the images: METAL, MOTION, CONTRAST_SEEN, POSTOPERATIVE, HU_UNUSUAL.

    Raises
    ------
    Refusal
        HU_IMPLAUSIBLE, NOT_HEAD.
    """
    air_hu = refuse_implausible(volume)
    rings = refuse_other_than_head(volume)
    refuse_interrupted(volume)
    notes = vault_notes(volume, rings)
    for what, hu, (least, most) in (
        ("Air", air_hu, USUAL_AIR_HU),
        ("The inside of the skull", rings.inside_hu, USUAL_BRAIN_HU),
    ):
        if not least <= hu <= most:
            reason = f"{what} measures {hu:.0f} Hounsfield units; usual is {least:.0f} to {most:.0f}."
            notes.append(Note(code=Code.HU_UNUSUAL, reason=reason))
    return notes

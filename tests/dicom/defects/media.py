"""Media with a DICOMDIR: burned disks, memory sticks, and what copying leaves of them. Names and files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pydicom.uid import ImplicitVRLittleEndian

from defects.given import CANARY, Family, Given
from defects.medium import address, medium, named
from edgehem.errors import Code

MEDIA = Family("media with a DICOMDIR")
refused, flagged, read_right = MEDIA.refused, MEDIA.flagged, MEDIA.read_right


# The medium as it should be, and in other letters.


@read_right("a medium: the folder is given", "usual")
def _(given: Given) -> None:
    medium(given).burn()


@read_right("a medium: its DICOMDIR is given", "usual")
def _(given: Given) -> Path:
    return medium(given).burn()


@read_right("a medium as a zip file", "usual for web portals")
def _(given: Given) -> Path:
    medium(given).burn()
    return Path(shutil.make_archive(str(given.folder.parent / f"{CANARY}_disk"), "zip", given.folder))


@read_right("a DICOMDIR in implicit VR", "not allowed, and met")
def _(given: Given) -> Path:
    return medium(given).burn(syntax=ImplicitVRLittleEndian)


@read_right("a DICOMDIR with undefined lengths", "usual")
def _(given: Given) -> Path:
    return medium(given).burn(undefined=True)


@read_right("lower-case names on the medium", "Linux mounts disks so")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    (made.root / CANARY).rename(made.root / CANARY.lower())
    for file in (made.root / CANARY.lower() / "S0001").iterdir():
        file.rename(file.with_name(file.name.lower()))
    return place


@read_right("lower-case names in the DICOMDIR", "a memory stick written by a viewer")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: [part.lower() for part in parts]))


@read_right("versions after the names on the medium", "ISO 9660 mounted without translation")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    for number in range(len(made.images)):
        made.file(number).rename(f"{made.file(number)};1")
    return place


@read_right("versions after the names in the DICOMDIR", "a list of a disk's names was taken over")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: [*parts[:-1], f"{parts[-1]};1"]))


@read_right("slashes between the parts of a name", "a burning program of another system")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: ["/".join(parts)]))


@read_right("names that begin at the root of the medium", "a burning program that writes \\\\IMAGES\\\\I1")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: ["", *parts]))


@read_right("names that begin with a dot", "a burning program that writes .\\\\IMAGES\\\\I1")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: [".", *parts]))


@read_right("long names with suffixes and blanks", "a memory stick written by a viewer")
def _(given: Given) -> Path:
    made = medium(given)
    for number, record in enumerate(made.images):
        name = [CANARY, f"{CANARY} head without", f"{CANARY} image {number:04d}.dcm"]
        target = made.root.joinpath(*name)
        target.parent.mkdir(exist_ok=True)
        made.file(number).rename(target)
        address(record, name)
    return made.burn()


@read_right("the DICOMDIR under another name", "exports of some workstations")
def _(given: Given) -> Path:
    return medium(given).burn().rename(given.folder / f"{CANARY}.dir")


# Names that lead elsewhere.


@refused(Code.UNREADABLE, "names with a drive: the DICOMDIR is given", "a list of the burning machine's files")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: ["D:", "EXPORT", *parts]))


@read_right("names with a drive: the folder is given", "a list of the burning machine's files")
def _(given: Given) -> None:
    medium(given).burn(change=lambda records: named(records, lambda parts: ["D:", "EXPORT", *parts]))


def _outside(given: Given, rename: Callable[[list[str]], list[str]]) -> Path:
    """The images lie beside the medium."""
    made = medium(given)
    made.burn(change=lambda records: named(records, rename))
    inner = given.folder / "MEDIUM"
    inner.mkdir()
    return Path(shutil.move(made.place, inner / "DICOMDIR"))


@refused(Code.UNREADABLE, "names that climb out of the medium", "hostile, or a copy of one folder of a disk")
def _(given: Given) -> Path:
    return _outside(given, lambda parts: ["..", *parts])


@refused(Code.UNREADABLE, "names that climb out of the medium, in one piece", "hostile")
def _(given: Given) -> Path:
    return _outside(given, lambda parts: ["../" + "/".join(parts)])


@refused(Code.UNREADABLE, "absolute names", "hostile, or a list of the burning machine's files")
def _(given: Given) -> Path:
    return _outside(given, lambda parts: [*str(given.folder).split("/"), *parts])


@refused(Code.UNREADABLE, "names through a link", "hostile")
def _(given: Given) -> Path:
    place = _outside(given, lambda parts: ["LINK", *parts])
    (place.parent / "LINK").symlink_to(given.folder)
    return place


@refused(Code.UNREADABLE, "a DICOMDIR without its medium", "the one file was sent")
def _(given: Given) -> Path:
    made = medium(given)
    shutil.rmtree(made.root / CANARY)
    return made.burn()


@refused(Code.UNREADABLE, "a folder with nothing but a DICOMDIR", "the one file was copied")
def _(given: Given) -> None:
    made = medium(given)
    shutil.rmtree(made.root / CANARY)
    made.burn()


# Files that are not there, and files that are not listed.


for _number, _where in ((0, "lowest"), (9, "middle"), (19, "highest")):
    for _whole in (False, True):
        _given = "folder" if _whole else "DICOMDIR"

        @refused(Code.SLICE_GAP, f"the {_where} slice is not on the medium: the {_given} is given", "a scratched disk")
        def _(given: Given, number: int = _number, whole: bool = _whole) -> Path:
            made = medium(given)
            place = made.burn()
            made.file(number).unlink()
            return made.root if whole else place


@refused(Code.SLICE_GAP, "the highest slice is not in the zip file of a medium", "a scratched disk was packed")
def _(given: Given) -> Path:
    made = medium(given)
    made.burn()
    made.file(19).unlink()
    return Path(shutil.make_archive(str(given.folder.parent / f"{CANARY}_disk"), "zip", given.folder))


@refused(Code.SLICE_GAP, "the highest slice is a copy of its neighbour", "a burning program that lost count")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    shutil.copy(made.file(18), made.file(19))
    return place


@refused(Code.SLICE_GAP, "the highest slice on the medium is empty", "a scratched disk was copied")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    made.file(19).write_bytes(b"")
    return place


@refused(Code.SLICE_GAP, "the highest slice is not there, and records have no UIDs", "an old burning program")
def _(given: Given) -> Path:
    made = medium(given)
    for record in made.images:
        del record.ReferencedSOPInstanceUIDInFile
    place = made.burn()
    made.file(19).unlink()
    return place


@read_right("records without UIDs", "an old burning program")
def _(given: Given) -> Path:
    made = medium(given)
    for record in made.images:
        del record.ReferencedSOPInstanceUIDInFile
    return made.burn()


@flagged(Code.FILES_PASSED_OVER, name="the scout is not on the medium", cause="a scratched disk", same=True)
def _(given: Given) -> Path:
    made = medium(given)
    scout = given.copy(5)[0]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    (file,) = made.add([scout], "S0005")
    file.unlink()
    return made.burn()


@flagged(Code.FILES_PASSED_OVER, name="one disk of two", cause="the DICOMDIR lists both", same=True)
def _(given: Given) -> None:
    made = medium(given)
    for file in made.add(given.copy(5), "S0005"):
        file.unlink()
    made.burn()


@read_right("slices beside the listed ones", "sent again after the DICOMDIR was written")
def _(given: Given) -> Path:
    made = medium(given)
    gone = made.images[17:]
    made.records = [record for record in made.records if all(record is not other for other in gone)]
    return made.burn()


@read_right("a series that is not listed: the DICOMDIR is given", "other files on a memory stick")
def _(given: Given) -> Path:
    made = medium(given)
    made.add(given.copy(), "S0002", listed=False)
    return made.burn()


@flagged(Code.SERIES_CHOSEN, name="a series that is not listed: the folder is given", cause="files on a memory stick")
def _(given: Given) -> None:
    made = medium(given)
    made.add(given.copy(), "S0002", listed=False)
    made.burn()


@read_right("files under other names than listed", "copied by a program that gives names of its own")
def _(given: Given) -> None:
    made = medium(given)
    made.burn()
    for number in range(len(made.images)):
        made.file(number).rename(made.root / f"{CANARY}{97 * number % 101:03d}.dcm")


@read_right("a viewer's folder beside the images: the DICOMDIR is given", "usual on disks")
def _(given: Given) -> Path:
    made = medium(given)
    (made.root / "VIEWER").mkdir()
    (made.root / "VIEWER" / "START.EXE").write_bytes(b"MZ" + bytes(5000))
    (made.root / "AUTORUN.INF").write_text(CANARY)
    return made.burn()

"""What the importer of one data set says of it: how its folders are read, who trains, who is looked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gaitdiff.data.partition import Partition
from gaitdiff.data.sources import Source
from gaitdiff.data.tally import Tally
from gaitdiff.data.walks import Tree, Walk


@dataclass(frozen=True)
class Dataset:
    """A data set as users have it on disk.

    Attributes:
        name: what ``--as`` calls it.
        title: as papers write it.
        find: (source, skipped) to the sequences; ``skipped`` gets a line for everything that is passed over. Raises
            UserError where the source is not this data set, naming what was expected and what lies there.
        recognise: why a source looks like this data set, in words, or "". Looks at names only.
        rule: identities on disk to the division that the field uses, which names everybody; None where it takes a
            partition file.
        published: whether papers divide it in a way of its own, so that a division by chance must be asked for.
        probes: whether the partition file names the sequences that are looked for.
        role: the role of a test sequence under the data set's protocol, "probe", "gallery" or "".
    """

    name: str
    title: str
    find: Callable[[Source, Tally], Tree]
    recognise: Callable[[Source], str]
    rule: Callable[[Sequence[str]], Partition] | None = None
    published: bool = True
    probes: bool = False
    role: Callable[[Walk], str] = lambda walk: walk.role

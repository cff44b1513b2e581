"""The guide's commands do what it says they do."""

import importlib.util

import pytest

from kernels import emulator
from profiling import machine

_spec = importlib.util.spec_from_file_location("replay", machine.ROOT / "docs" / "replay.py")
replay = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(replay)

GUIDE = """# A guide

```console first=1 last=1
$ seq 3 && echo done
```

```console exit=3
$ echo kept > file; exit 3
```

```console
$ cat file
```
"""
REPLAYED = """# A guide

```console first=1 last=1
$ seq 3 && echo done
1
...
done
```

```console exit=3
$ echo kept > file; exit 3
```

```console
$ cat file
kept
```
"""


def test_what_commands_print_is_put_below_them():
    assert replay.replay(GUIDE, check=False) == REPLAYED
    assert replay.replay(REPLAYED, check=False) == REPLAYED
    assert replay.replay(REPLAYED, check=True) == REPLAYED


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("\ndone\n", "\nfinished\n", "no line 'finished'"), ("exit=3", "exit=1", "exit code 3")],
)
def test_a_guide_that_is_wrong_is_told(old, new, told):
    with pytest.raises(replay.GuideError, match=told):
        replay.replay(REPLAYED.replace(old, new), check=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_the_workshop():
    guide = (machine.ROOT / "docs" / "workshop.md").read_text()
    assert replay.replay(guide, check=True) == guide

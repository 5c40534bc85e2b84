"""Databases that can be used or not, and the lock that several machines share."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import text

from openwork.comparison.database import DatabaseLock, connect, database_errors, opened, repeated


@pytest.fixture
def database(tmp_path: Path) -> RDBStorage:
    return connect(f"sqlite:///{tmp_path / 'study.db'}")


def test_a_lock_lets_one_in_at_a_time(database: RDBStorage) -> None:
    inside, most = [0], [0]

    def enter() -> None:
        for _ in range(3):
            with DatabaseLock(database, "s.lock"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.02)
                inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == ([0], [1])
    assert database.get_all_studies() == []


def test_a_lock_whose_holder_is_silent_is_taken_over(database: RDBStorage) -> None:
    database.create_new_study([StudyDirection.MINIMIZE], "s.lock")
    begin = time.monotonic()
    with DatabaseLock(database, "s.lock", patience=0.5):
        assert time.monotonic() - begin >= 0.5
    assert database.get_all_studies() == []


def test_a_lock_whose_holder_works_long_is_respected(database: RDBStorage) -> None:
    left: list[float] = []

    def hold() -> None:
        with DatabaseLock(database, "s.lock", patience=0.6):
            held.set()
            time.sleep(1.5)
            left.append(time.monotonic())

    held = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with DatabaseLock(database, "s.lock", patience=0.6):
        assert left and left[0] <= time.monotonic()
    holder.join()


def test_who_was_taken_over_leaves_the_next_one_alone(database: RDBStorage) -> None:
    slow = DatabaseLock(database, "s.lock")
    with slow:
        database.delete_study(database.get_study_id_from_name("s.lock"))
        # On a server, numbers are never used again; SQLite needs another study in between for that.
        database.create_new_study([StudyDirection.MINIMIZE], "other")
        successor = database.create_new_study([StudyDirection.MINIMIZE], "s.lock")
    assert database.get_study_id_from_name("s.lock") == successor


WORKER = """
import sys, time
from pathlib import Path

from openwork.comparison.database import DatabaseLock, connect

name, storage = sys.argv[1:]
database, count = connect(storage), Path("count")
Path(name).touch()
while not Path("go").exists():
    time.sleep(0.001)
for _ in range(5):
    with DatabaseLock(database, "s.lock"):
        if name == "dies":
            Path("inside").touch()
            time.sleep(600)
        seen = int(count.read_text())
        time.sleep(0.05)
        count.write_text(str(seen + 1))
"""
Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path, database: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a process that adds one to a number five times, each time in the lock; ended with the test."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    workers: list[subprocess.Popen[bytes]] = []
    (tmp_path / "count").write_text("0")

    def begin(name: str) -> subprocess.Popen[bytes]:
        # The file has a lock beside it as a rule, but none is taken here.
        command = [sys.executable, "-c", WORKER, name, f"sqlite:///{tmp_path / 'study.db'}"]
        workers.append(subprocess.Popen(command, cwd=tmp_path))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.kill()
        worker.wait()


def wait_for(*files: Path) -> None:
    end = time.monotonic() + 300
    while not all(file.exists() for file in files):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_lock_lets_one_process_in_at_a_time(tmp_path: Path, start: Start) -> None:
    workers = [start("a"), start("b")]
    wait_for(tmp_path / "a", tmp_path / "b")
    (tmp_path / "go").touch()
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    assert (tmp_path / "count").read_text() == "10"
    assert not (tmp_path / "study.db.lock").exists()


@pytest.mark.slow
def test_a_lock_whose_holder_was_killed_is_taken_over(tmp_path: Path, database: RDBStorage, start: Start) -> None:
    (tmp_path / "go").touch()
    holder = start("dies")
    wait_for(tmp_path / "inside")
    holder.kill()
    holder.wait()
    assert len(database.get_all_studies()) == 1
    begin = time.monotonic()
    with DatabaseLock(database, "s.lock", patience=0.5):
        assert time.monotonic() - begin >= 0.5
    assert database.get_all_studies() == []


def test_files_have_a_lock_beside_them(tmp_path: Path) -> None:
    _, lock = opened(f"sqlite:///{tmp_path / 'x.db'}", "s")
    assert isinstance(lock, FileLock)
    assert lock.lock_file == str(tmp_path / "x.db.lock")


def test_other_databases_have_a_lock_inside() -> None:
    database, lock = opened("sqlite:///:memory:", "s")
    assert isinstance(lock, DatabaseLock)
    assert database.get_all_studies() == []


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        (
            "sqlite:////nowhere/study.db",
            "storage 'sqlite:////nowhere/study.db' cannot be used (unable to open database",
        ),
        ("nonsense://me:secret@host/x", "storage 'nonsense://me:***@host/x' cannot be used (Can't load plugin: "),
        ("postgresql+nodriver://host/x", "storage 'postgresql+nodriver://host/x' cannot be used (Can't load plugin: "),
        ("a b c", "storage 'a b c' cannot be used (Could not parse SQLAlchemy URL"),
    ],
)
def test_a_database_that_cannot_be_reached(storage: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="cannot be used") as error:
        opened(storage, "s")
    assert str(error.value).startswith(sentence), error.value
    assert str(error.value).endswith("or leave it out for a file in the folder")
    assert not Path("/nowhere").exists()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("storage", "options"),
    [
        ("sqlite:///x.db", {"connect_args": {"timeout": 60}}),
        ("postgresql://host/x", {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}),
        ("postgresql+psycopg://host/x", {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}),
        ("mysql://host/x", {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}),
        ("mysql+pymysql://host/x", {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}),
        ("postgresql://host/x?connect_timeout=99", {"pool_pre_ping": True, "connect_args": {}}),
        ("postgresql+pg8000://host/x", {"pool_pre_ping": True, "connect_args": {}}),
    ],
)
def test_a_server_has_ten_seconds_to_answer(
    storage: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, object]] = []

    def record(url: str, engine_kwargs: dict[str, object], **_: object) -> None:
        assert url == storage
        given.append(engine_kwargs)

    monkeypatch.setattr("openwork.comparison.database.RDBStorage", record)
    connect(storage)
    assert given == [options]


def test_a_database_that_goes_away_is_said_in_one_sentence(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path / 'study.db'}")
    with database.scoped_session() as session:
        session.execute(text("DROP TABLE studies"))
    with pytest.raises(ConnectionError) as error, database_errors():
        database.get_all_studies()
    assert str(error.value) == (
        "the database of the study failed (no such table: studies); what is finished is kept: go on with the same call "
        "once it works again"
    )


def test_what_is_repeated_may_fail_and_ends() -> None:
    times: list[int] = []

    def act() -> None:
        times.append(1)
        raise OSError

    with repeated(act, 0.01):
        time.sleep(0.2)
    count = len(times)
    assert count > 2
    time.sleep(0.05)
    assert len(times) == count

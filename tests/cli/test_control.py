"""What a parent hands over is what its worker gets."""

from agentws.cli.control import Answer, Handover
from agentws.settings import FIELDS, Settings


def test_a_worker_has_its_parent_s_settings_to_the_last() -> None:
    settings = Settings(
        env="staging",
        workers=3,
        jwt_secret="caf\udce9" * 20,  # from a variable that is no UTF-8
        data_dir="/srv/\udcff",
        poll_interval_ms=0.1 + 0.2,
        migrate_at_start=True,
    )
    given = Handover(settings=settings, agents="mine:agents", worker=2, sockets=[5, 6])
    line = given.line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    got = Handover.of(line)
    assert got == given
    assert [getattr(got.settings, name) for name in FIELDS] == [getattr(settings, name) for name in FIELDS]


def test_an_answer_is_one_line_of_a_size_that_fits() -> None:
    assert Answer.of(Answer().line()).failure is None
    assert Answer.of(Answer(failure="one\ntwo").line()).failure == "one\ntwo"
    assert len(Answer(failure="é" * 100_000).line()) < 65536

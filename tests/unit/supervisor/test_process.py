"""Spawning, signalling and reaping, with real children, in a process of their own: the reaper takes
every status there is, also those that the tests' own children would need.
"""

from __future__ import annotations

import json

import pytest

from tests.harness.fresh import python, reaping


def test_wait_says_how_it_ended() -> None:
    """The exit status or the signal of a child arrives, and reads as what happened."""
    said = reaping(
        """
        for script in ("exit 0", "exit 7", "kill -9 $$", "kill -TERM $$", "kill -40 $$"):
            pid = processes.spawn(["/bin/sh", "-c", script], descriptors={})
            ended = await processes.wait(pid)
            print(*ended, ended.clean, ended)
        """
    )
    assert said.splitlines() == [
        "0 None True exited with status 0",
        "7 None False exited with status 7",
        "None 9 False killed by SIGKILL",
        "None 15 False killed by SIGTERM",
        "None 40 False killed by signal 40",
    ]


def test_many_children_at_once_each_get_their_own_status() -> None:
    """SIGCHLDs merge: with 60 children that end together, every one is still told apart."""
    said = reaping(
        """
        reader, writer = os.pipe()
        pids = [processes.spawn(["/bin/sh", "-c", f"read x <&3; exit {n}"],
                                descriptors={3: reader}) for n in range(60)]
        os.close(reader)
        os.close(writer)
        print([(await processes.wait(pid)).status for pid in pids] == list(range(60)))
        """
    )
    assert said == "True\n"


def test_a_child_that_died_before_it_was_reported() -> None:
    """The status of a child that nobody asked for yet is kept for who adopts it."""
    said = reaping(
        """
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        await gone(pid)
        assert not processes.alive(pid)
        processes.adopt(pid)
        assert not processes.alive(pid)
        print(await processes.wait(pid))
        """
    )
    assert said == "exited with status 3\n"


def test_a_kept_status_is_forgotten_in_time() -> None:
    """A status that nobody asked for is not taken for the end of a process that gets the same
    number much later.
    """
    said = reaping(
        """
        from wssup.supervisor import process
        process._UNCLAIMED_FOR = 0.01
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        await gone(pid)
        await trio.sleep(0.05)
        processes.adopt(pid)
        print(processes.alive(pid))
        """
    )
    assert said == "True\n"


@pytest.mark.parametrize("ago", [0, 1000])
def test_a_spawned_process_is_not_taken_for_an_earlier_one(ago: int) -> None:
    """A process that is spawned under a number whose last owner's status was never asked for
    (lately, or long ago) is alive, and its own end is what is waited for.
    """
    said = reaping(
        """
        # Those of after a wrap, too.
        numbers = {*range(2, 100_000), *range(os.getpid(), os.getpid() + 100_000)}
        for number in numbers - {os.getpid()}:
            processes._ended[number] = Exit(9, None)
            processes._unclaimed[number] = time.monotonic() - int(sys.argv[1])
        reader, writer = os.pipe()
        pid = processes.spawn(["/bin/sh", "-c", "read x <&3; exit 4"], descriptors={3: reader})
        assert pid in numbers
        print(processes.alive(pid))
        os.close(writer)
        print(await processes.wait(pid))
        """,
        ago,
    )
    assert said == "True\nexited with status 4\n"


def test_children_that_ended_before_reaping_began() -> None:
    """Who ended before the reaper ran, and whose SIGCHLD nobody saw, is reaped as it begins."""
    said = python(
        """
        from wssup.supervisor.process import Processes

        async def main():
            processes = Processes()
            pid = processes.spawn(["/bin/sh", "-c", "exit 6"], descriptors={})
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            with trio.fail_after(50):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(processes.reap)
                    print(await processes.wait(pid))
                    nursery.cancel_scope.cancel()

        trio.run(main)
        """
    )
    assert said == "exited with status 6\n"


def test_orphans_of_a_double_fork_become_ours() -> None:
    """The child of a child that has ended is reaped here, and its status can be asked for."""
    said = reaping(
        """
        become_subreaper()
        reader, writer = os.pipe()
        hold, release = os.pipe()
        parent = processes.spawn(
            ["/bin/sh", "-c", "(read x <&4; exit 5) & echo $! >&3"],
            descriptors={3: writer, 4: hold},
        )
        print(await processes.wait(parent))
        orphan = int(os.read(reader, 100))
        processes.adopt(orphan)
        assert processes.alive(orphan)
        os.close(release)
        print(await processes.wait(orphan), os.path.exists(f"/proc/{orphan}"))
        """
    )
    assert said == "exited with status 0\nexited with status 5 False\n"


def test_strangers_are_reaped_too() -> None:
    """No zombie stays of a child that nobody ever asks for, nor, after a while, its status."""
    said = reaping(
        """
        from wssup.supervisor import process
        process._UNCLAIMED_FOR = 0.01
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            await gone(pid)
        await trio.sleep(0.05)
        processes.adopt(1)
        print(len(processes._ended), len(processes._unclaimed))
        """
    )
    assert said == "0 0\n"


def test_a_child_has_the_descriptors_it_was_given_and_no_others() -> None:
    """Descriptors are laid on the numbers asked for, also when those numbers are the parent's for
    the respective other one; what the parent would let a child inherit is not inherited; stdin is
    /dev/null.
    """
    said = reaping(
        """
        show = (
            "import json, os\\n"
            "found = {}\\n"
            "for name in os.listdir('/proc/self/fd'):\\n"
            "    try: found[int(name)] = os.readlink('/proc/self/fd/' + name)\\n"
            "    except OSError: pass\\n"
            "print(json.dumps(found))\\n"
        )
        a, b = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/full", os.O_RDONLY)
        stray = os.dup2(a, 77, inheritable=True)
        before = set(os.listdir("/proc/self/fd"))
        await processes.wait(processes.spawn(
            [sys.executable, "-SEc", show], descriptors={a: b, b: a, 9: a}
        ))
        assert set(os.listdir("/proc/self/fd")) == before
        print(a, b, os.get_inheritable(a), os.get_inheritable(77))
        """
    )
    shown, mine = said.splitlines()
    found = {int(k): v for k, v in json.loads(shown).items()}
    a, b, *inheritable = mine.split()
    assert inheritable == ["False", "True"]
    assert found.pop(0) == "/dev/null"
    assert {found.pop(1).partition(":")[0], found.pop(2).partition(":")[0]} == {"pipe"}
    assert found == {int(a): "/dev/full", int(b): "/dev/zero", 9: "/dev/zero"}


def test_a_child_starts_in_a_session_of_its_own_with_all_signals() -> None:
    """A child leads a session, blocks nothing and ignores nothing, whatever its parent does."""
    said = reaping(
        """
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # who runs the tests may ignore them
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
        for argv in (
            ["/bin/sh", "-c", "echo $$ $(ps -o sid= -p $$)"],
            ["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"],
        ):
            await processes.wait(processes.spawn(argv, descriptors={}))
        """
    )
    session, *status = said.splitlines()
    leader, number = session.split()
    assert leader == number
    # glibc keeps signals 32 and 33 to itself, and its posix_spawn(3) leaves them ignored.
    assert [int(line.split()[1], 16) & 0x7FFFFFFF for line in status] == [0, 0]


def test_environment() -> None:
    """A child has the parent's environment, or the one it was given; what may hold the password of
    a server it has not.
    """
    said = reaping(
        """
        os.environ["MARK"] = "here"
        os.environ["WSSUP_TOPICS_BUS"] = "redis://:secret@host"
        for environ in (None, {"MARK": "there"}):
            await processes.wait(processes.spawn(
                ["/bin/sh", "-c", "echo $MARK ${HOME:-none} $WSSUP_TOPICS_BUS"],
                descriptors={}, environ=environ))
        """
    )
    (first, _), second = said.splitlines()[0].split(), said.splitlines()[1]
    assert first == "here"
    assert second == "there none"


def test_signals_reach_the_living_only() -> None:
    """A signal reaches a living child; once a child's end was noticed, signalling its number does
    nothing, as its number may be another process's.
    """
    said = reaping(
        """
        pid = processes.spawn(["/bin/sleep", "1000"], descriptors={})
        assert processes.alive(pid)
        processes.signal(pid, signal.SIGUSR1)
        print(await processes.wait(pid), processes.alive(pid))
        processes.signal(pid, signal.SIGKILL)

        dead = processes.spawn(["/bin/true"], descriptors={})
        await gone(dead)
        assert not processes.alive(dead)
        sent = []
        os.kill = lambda *what: sent.append(what)
        processes.signal(dead, signal.SIGKILL)
        processes.signal(os.getpid(), signal.SIGKILL)
        print(sent, await processes.wait(dead))
        """
    )
    assert said == "killed by SIGUSR1 False\n[] exited with status 0\n"


def test_a_wait_that_was_given_up_can_be_asked_again() -> None:
    """Who waited with a deadline in vain can wait again."""
    said = reaping(
        """
        reader, writer = os.pipe()
        pid = processes.spawn(["/bin/sh", "-c", "read x <&3; exit 4"], descriptors={3: reader})
        with trio.CancelScope() as scope:
            scope.cancel()
            await processes.wait(pid)
        assert scope.cancelled_caught
        os.close(writer)
        print(await processes.wait(pid))
        """
    )
    assert said == "exited with status 4\n"


def test_what_cannot_be_started() -> None:
    """A program that is not there raises OSError, and leaves neither child nor descriptor."""
    said = reaping(
        """
        reader, writer = os.pipe()
        before = os.listdir("/proc/self/fd")
        try:
            processes.spawn(["/no/such/program"], descriptors={3: reader})
        except FileNotFoundError as error:
            print(error.strerror)
        assert os.listdir("/proc/self/fd") == before
        """
    )
    assert said == "No such file or directory\n"


def test_become_subreaper() -> None:
    """The kernel is told (prctl(2)): PR_GET_CHILD_SUBREAPER says so."""
    said = python(
        """
        import ctypes
        from wssup.supervisor.process import become_subreaper
        libc, flag = ctypes.CDLL(None), ctypes.c_int()
        for _ in range(2):
            libc.prctl(37, ctypes.byref(flag), 0, 0, 0)
            print(flag.value)
            become_subreaper()
        """
    )
    assert said == "0\n1\n"

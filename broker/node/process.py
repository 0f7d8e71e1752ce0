"""One node as a process: event loop, signals, log, exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import uvloop

from broker.config.model import Config
from broker.errors import EXIT_DONE, EXIT_FAILED, BrokerError
from broker.node.board import Board
from broker.node.handover import Predecessor
from broker.node.node import Node
from broker.node.spawner import fork_spawner, set_process_name
from broker.node.supervisor import Supervisor
from broker.node.worker import work
from broker.observe import logs
from broker.observe.logs import AS_USUAL, LogOptions
from broker.tls import tickets

log = logging.getLogger("broker.node")

Maker = Callable[..., Node | Supervisor]


def run(config: Config, log_options: LogOptions = AS_USUAL) -> int:
    """Run a node until it is told to end; the exit code."""
    logs.set_up(log_options)
    make: Maker = Node
    if config.workers > 1:
        board = Board(config.workers)
        tickets.stock()
        spawner = fork_spawner(
            work(board, config.workers, log_options)
        )  # before there is a loop, or a thread
        set_process_name("broker")
        make = partial(Supervisor, spawner=spawner, board=board)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_node(config, make))


async def run_node(config: Config, make: Maker = Node) -> int:
    predecessor = Predecessor.from_environment()
    node = make(config, predecessor=predecessor)
    try:
        handle_signals(node)
        await node.start()
        await node.serve()
        await node.shutdown()
    except BrokerError as error:
        log.error("%s", error)
        if predecessor is not None:
            predecessor.fail(str(error))
        return error.exit_code
    except Exception:
        log.exception("the node failed; this is a mistake in the program")
        return EXIT_FAILED
    finally:
        await node.close()
    return EXIT_DONE


def handle_signals(node: Node | Supervisor) -> None:
    """SIGTERM and SIGINT drain, the second one stops at once; SIGHUP reloads; SIGUSR1 opens the access log
    again; SIGUSR2 hands over."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def end(name: str) -> None:
        if node.leaving:
            node.stop(f"a second signal, {name}")
        else:
            node.drain(name)

    async def attempt(what: str, act: Callable[[], Awaitable[object]]) -> None:
        try:
            await act()
        except BrokerError:
            return  # the node has said why
        except Exception:
            log.exception("%s failed", what)

    def begin(what: str, act: Callable[[], Awaitable[object]]) -> None:
        task = loop.create_task(attempt(what, act), name=what)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number.name)
    loop.add_signal_handler(signal.SIGUSR1, node.reopen_log)
    loop.add_signal_handler(signal.SIGHUP, begin, "reload", node.reload)
    loop.add_signal_handler(signal.SIGUSR2, begin, "upgrade", node.upgrade)

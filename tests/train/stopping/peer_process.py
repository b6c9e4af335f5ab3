"""One of two processes that train nothing: where they stop when one of them gets SIGTERM.

python -m tests.train.stopping.peer_process NUMBER PORT
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from onethinker_jax.command_line import Terminated
from onethinker_jax.host_settings import HostSettings
from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.hosts import join_hosts
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.stopping.notice import Notice, StopKind
from onethinker_jax.train.stopping.peers import Peers
from tests.waiting import HANG_S

number, port = int(sys.argv[1]), sys.argv[2]
hosts = join_hosts(HostSettings(f"127.0.0.1:{port}", 2, number))
notice, calls = Notice(PreemptionSettings(deadline=10 * HANG_S, exit_status=75), Peers(hosts)), 0
try:
    with (
        tempfile.TemporaryDirectory() as folder,
        RunLog(Path(folder)) as log,
        notice.listening(),
        notice.deferred(log),
    ):
        while not notice.reached():
            calls += 1
            if number == 1 and calls == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep((0.003, 0.02)[number])  # their paces; nothing depends on them
        assert notice.agreed(hosts) is StopKind.PREEMPTION
        sys.stdout.write(f"stopped at call {calls} \n")
        sys.stdout.flush()
        raise notice.stop()
except Terminated as stop:
    sys.exit(stop.status)

# The executable that a runtime starts for each verb: hands the call to the node's resident service
# and prints what that answers. Imports nothing but _socket: bare Python starts in 8 ms, one more
# module costs as much again. @SOCKET@, @PYTHON@ and @PLUGIN@ are filled in when it is installed.
import _socket
import posix
import sys

SOCKET, PYTHON, PLUGIN = "@SOCKET@", "@PYTHON@", "@PLUGIN@"
SCM_RIGHTS = 1


def main() -> None:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(SOCKET)
    except OSError:
        # Without the service the work is done here, more slowly, with the same result.
        posix.execv(PYTHON, [PYTHON, "-I", "-m", "tiphys_cni.standalone", PLUGIN])
    environment = [k + b"=" + v for k, v in posix.environ.items() if k.startswith(b"CNI_")]
    stdin = b""
    while True:
        piece = posix.read(0, 65536)
        if not piece:
            break
        stdin += piece
    payload = b"\0".join([PLUGIN.encode(), *environment, b"", stdin])
    rights = []
    try:
        netns = posix.open(posix.environ.get(b"CNI_NETNS", b""), posix.O_RDONLY | posix.O_CLOEXEC)
        rights = [(_socket.SOL_SOCKET, SCM_RIGHTS, netns.to_bytes(4, sys.byteorder))]
    except OSError:
        pass  # A namespace that is gone: only DEL makes sense then, and the service knows.
    connection.sendmsg([len(payload).to_bytes(4, "big")], rights)
    view = memoryview(payload)
    while view:
        view = view[connection.send(view) :]
    answer = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            break
        answer += piece
    if not answer:
        answer = b'\1{"cniVersion":"1.0.0","code":11,"msg":"the CNI service ended before it answered; try again"}\n'
    posix.write(1, answer[1:])
    posix._exit(answer[0])


main()

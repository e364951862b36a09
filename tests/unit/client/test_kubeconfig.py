"""kubeconfig files."""

import base64
import stat
from pathlib import Path

import pytest
import yaml

from tiphys_client import kubeconfig
from tiphys_client.kubeconfig import ClientConfig, KubeconfigError

CONFIG = ClientConfig(
    server_url="https://127.0.0.1:7443",
    grpc_address="127.0.0.1:7444",
    ca_pem=b"CA",
    cert_pem=b"CERT",
    key_pem=b"KEY",
    token="secret",
    tls_server_name="kubernetes",
    namespace="kube-system",
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "admin.conf"
    kubeconfig.write(path, CONFIG)
    assert kubeconfig.load(path) == CONFIG
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def stock(tmp_path: Path, **user: object) -> Path:
    (tmp_path / "ca.crt").write_bytes(b"CA")
    (tmp_path / "token").write_text("t1\n")
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "b",
        "clusters": [
            {"name": "one", "cluster": {"server": "https://[::1]:6443", "certificate-authority": "ca.crt"}},
            {"name": "two", "cluster": {"server": "http://api.example.com", "insecure-skip-tls-verify": True}},
        ],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "a", "context": {"cluster": "one", "user": "u"}},
            {"name": "b", "context": {"cluster": "two", "user": "u", "namespace": "n"}},
            {"name": "broken", "context": {"cluster": "none", "user": "u"}},
        ],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return path


def test_stock_file_with_paths_beside_it(tmp_path: Path) -> None:
    path = stock(tmp_path, tokenFile="token", **{"client-certificate-data": base64.b64encode(b"C").decode()})
    config = kubeconfig.load(path, "a")
    assert config.ca_pem == b"CA"
    assert config.cert_pem == b"C"
    assert config.token_file == tmp_path / "token"
    assert config.grpc_address == "[::1]:6444"
    assert config.namespace == "default"


def test_current_context_is_the_default(tmp_path: Path) -> None:
    config = kubeconfig.load(stock(tmp_path, token="t"))
    assert (config.server_url, config.grpc_address, config.token) == (
        "http://api.example.com",
        "api.example.com:6444",
        "t",
    )
    assert config.insecure_skip_tls_verify
    assert config.namespace == "n"


@pytest.mark.parametrize(
    ("context", "user", "text"),
    [
        pytest.param("broken", {}, "has no cluster named 'none'", id="no such cluster"),
        pytest.param("missing", {}, "has no context named 'missing'", id="no such context"),
        pytest.param("a", {"exec": {"command": "x"}}, "uses exec", id="exec plugin"),
        pytest.param("a", {"username": "x"}, "uses username", id="password"),
        pytest.param("a", {"client-key": "none.key"}, "cannot be read", id="missing file"),
        pytest.param("a", {"client-key-data": "%%%"}, "not base64", id="damaged data"),
    ],
)
def test_unusable_context_says_why(tmp_path: Path, context: str, user: dict[str, object], text: str) -> None:
    with pytest.raises(KubeconfigError, match=text):
        kubeconfig.load(stock(tmp_path, **user), context)


@pytest.mark.parametrize(("content", "text"), [("{", "is not YAML"), ("", "is empty"), ("a: b", "no current-context")])
def test_unusable_file_says_why(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(KubeconfigError, match=text):
        kubeconfig.load(path)


def test_missing_file_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="--kubeconfig"):
        kubeconfig.load(tmp_path / "none")


def test_pod_reads_its_service_account(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(b"CA")
    (tmp_path / "namespace").write_text("web\n")
    config = kubeconfig.in_cluster("10.96.0.1", tmp_path)
    assert (config.grpc_address, config.namespace, config.ca_pem) == ("10.96.0.1:6444", "web", b"CA")
    with pytest.raises(KubeconfigError, match="no service account"):
        kubeconfig.in_cluster("10.96.0.1", tmp_path / "none")


def test_secrets_do_not_show() -> None:
    assert "secret" not in repr(CONFIG)
    assert "KEY" not in repr(CONFIG)

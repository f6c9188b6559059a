#!/usr/bin/env python3
"""Makes the seeds of the corpora with the tools whose formats they are: run it beside this file, on a machine that has them.

It adds and replaces files; what fuzzers found stays.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile
import zipfile

CORPUS = pathlib.Path(__file__).parent / "corpus"
HASH = hashlib.sha256(b"content").hexdigest()


def seed(target, name, content):
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)


def run(*command, cwd=None, stdin=b"", **env):
    return subprocess.run(
        command, cwd=cwd, input=stdin, stdout=subprocess.PIPE, check=True, env=os.environ | env
    ).stdout


def tree(top):
    (top / "bin").mkdir(parents=True)
    (top / "bin/run").write_text("#!/bin/sh\necho hello\n")
    (top / "bin/run").chmod(0o755)
    (top / "empty").write_bytes(b"")
    (top / "data").write_bytes(bytes(range(256)))
    (top / "link").symlink_to("bin/run")
    (top / "deep/er").mkdir(parents=True)
    return top


def store(work):
    top = tree(work / "tree")
    nars = {"tree": run("nix-store", "--dump", top), "file": run("nix-store", "--dump", top / "data")}
    nars["program"] = run("nix-store", "--dump", top / "bin/run")
    nars["link"] = run("nix-store", "--dump", top / "link")
    for name, nar in nars.items():
        for target in ["nar", "restore"]:
            seed(target, name, nar)
    for name, tool in {"gz": ["gzip", "-9nc"], "xz": ["xz", "-c"], "zst": ["zstd", "-qc"], "bz2": ["bzip2", "-c"]}.items():
        packed = run(*tool, stdin=nars["tree"])
        seed("compression", name, packed)
        seed("source_compression", name, packed)
    seed("compression", "bomb.zst", run("zstd", "-qc19", stdin=bytes(4 << 20)))
    seed("compression", "bomb.xz", run("xz", "-9ec", stdin=bytes(4 << 20)))
    seed("source_compression", "bomb.gz", gzip.compress(bytes(4 << 20), 9, mtime=0))
    stock(work, top)
    hashes = [f"{a}:{run('nix-hash', '--type', a, '--flat', *o, top / 'data').decode().strip()}"
              for a in ["md5", "sha1", "sha256", "sha512"] for o in [[], ["--base32"]]]
    sri = "sha256-" + base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    seed("hash", "forms", "\n".join([*hashes, sri, hashes[4].split(":")[1], "0" * 52, "1"]))
    seed("signature", "all", "\n".join([
        "test-1:WUcFdVrQTVgehSwpb3FXMsRiDOVNj1+L8oITEkL/xRE=",
        "cache.example-1:" + base64.b64encode(bytes(64)).decode(),
    ]))
    part = "0106411gik8g8k4g8k0h4g8h04g2140g"
    seed("reference_scan", "parts", f"/nix/store/{part}-x and 20c8230s5080h40a1021840q1s810a41040g2 \x00{part}{part}")


def stock(work, top):
    """What stock Nix writes: exports, derivations, narinfos, realisations, keys, names."""
    home = {"NIX_STATE_DIR": f"{work}/state", "NIX_STORE_DIR": "/nix/store", "NIX_CONF_DIR": str(work)}
    remote = f"local?root={work}/root"
    env = {**home, "NIX_REMOTE": remote, "NIX_CONFIG": "experimental-features = nix-command ca-derivations\nsandbox = false"}
    path = run("nix-store", "--add", top, **env).decode().strip()
    text = work / "text"
    text.write_text(f"refers to {path}\n")
    seed("import", "tree", run("nix-store", "--export", path, **env))
    seed("import", "empty", bytes(8))
    seed("registrations", "dump", run("nix-store", "--dump-db", **env))
    expression = work / "x.nix"
    expression.write_text("""
      let drv = extra: derivation ({ name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo \\"a\\nb\\" > $out" ]; } // extra);
      in {
        plain = drv { };
        several = drv { outputs = [ "out" "dev" ]; input = drv { }; };
        fixed = drv { outputHash = "%s"; outputHashAlgo = "sha256"; };
        recursive = drv { outputHash = "%s"; outputHashAlgo = "sha256"; outputHashMode = "recursive"; };
        floating = drv { __contentAddressed = true; outputHashAlgo = "sha256"; outputHashMode = "recursive"; };
        structured = drv { __structuredAttrs = true; list = [ 1 "two" { three = 3.5; } ]; };
        source = drv { src = builtins.toFile "source" "text"; tab = "\\t\\r\\"\\\\"; };
      }""" % (HASH, HASH))
    for name in ["plain", "several", "fixed", "recursive", "floating", "structured", "source"]:
        drv = run("nix-instantiate", expression, "-A", name, **env).decode().strip()
        seed("aterm", name, (work / f"root{drv}").read_bytes())
        if name == "source":
            seed("store_path", "paths", "\n".join([
                drv, drv.split("/")[-1], path, f"{path}/bin/run", "fixed:r:sha256:" + "0" * 52, "text:sha256:" + "1" * 52, "fixed:sha1:" + "0" * 32,
                "a name.tar.gz", ".hidden", "..", "é", "a" * 250,
            ]))
    key = work / "key"
    key.write_bytes(run("nix-store", "--generate-binary-cache-key", "seed-1", key, work / "public", **env) or key.read_bytes())
    seed("signature", "secret", key.read_bytes())
    seed("signature", "public", (work / "public").read_bytes())
    cache = work / "cache"
    run("nix", "copy", "--to", f"file://{cache}?secret-key={key}&compression=xz", path, **env)
    for found in cache.rglob("*"):
        if found.suffix == ".narinfo":
            seed("narinfo", "signed", found.read_bytes())
        if found.name == "nix-cache-info":
            seed("cache_info", "stock", found.read_bytes())
        if found.suffix == ".xz":
            seed("compression", "nar.xz", found.read_bytes())
    seed("cache_info", "full", "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n")
    part = path.split("/")[-1]
    seed("narinfo", "references", (
        f"StorePath: {path}\nURL: nar/{'0' * 52}.nar.zst\nCompression: zstd\nFileHash: sha256:{'0' * 52}\nFileSize: 1\nNarHash: sha256:{'0' * 52}\n"
        f"NarSize: 120\nReferences: {part}\nDeriver: {part}.drv\nSig: seed-1:{base64.b64encode(bytes(64)).decode()}\nCA: fixed:r:sha256:{'0' * 52}\n"))
    seed("realisation", "signed", json.dumps({"outPath": part, "signatures": ["seed-1:" + base64.b64encode(bytes(64)).decode()]}))
    seed("realisation", "stock", json.dumps({"dependentRealisations": {}, "id": f"sha256:{HASH}!out", "outPath": part, "signatures": []}))


def derivations():
    source = {"id": {"pypi": {"name": "demo", "version": "1.0"}}, "file": "demo-1.0.tar.gz", "size": 3, "sha256": HASH}
    lock = (pathlib.Path(__file__).parent / "../../derivations/catalog/ampoule.lock").resolve()
    if lock.exists():
        entire = json.loads(lock.read_text())
        few = dict(list(entire["sources"].items())[-3:])
        for entry in few.values():
            if "packages" in entry:
                entry["packages"] = entry["packages"][:2]
        seed("lock", "catalog", json.dumps({"schema": entire["schema"], "sources": few}, indent=1))
    seed("lock", "empty", '{"schema": 1, "sources": {}}')
    out = {"out": "/nix/store/x"}
    for name, env in {
        "fetch": {"source": json.dumps(source["id"]), "file": "demo-1.0.tar.gz", "size": "3"},
        "unpack": {"src": "/nix/store/x", "strip": "1", "patches": '["/nix/store/p"]'},
        "debian_tree": {"packages": '["/nix/store/a.deb"]', "links": '{"usr/bin/cc": "gcc"}', "files": '{"etc/x": "y"}', "drop": '["usr/share/doc/**"]'},
        "wheel": {"raw": "/nix/store/x", "name": "demo", "version": "1.0", "platform": "linux-x86_64", "python": "cp311",
                  "expect": '{"native": false, "modules": ["demo"]}'},
        "python_path": {"wheels": '["/nix/store/demo-1.0-py3-none-any.whl"]'},
    }.items():
        seed("builtin", name, json.dumps(env | out))


def archives(work):
    top = tree(work / "archive" / "demo-1.0")
    (top / ("long-" * 30)).write_text("x")
    hole = top / "sparse"
    with hole.open("wb") as file:
        file.seek(100_000)
        file.write(b"end")
    for form in ["gnu", "pax", "ustar", "v7"]:
        plain = run("tar", "-C", top.parent, f"--format={form}", "--sort=name", "--mtime=@1", "--owner=0", "--group=0", "-b1",
                    *(["--sparse"] if form in ("gnu", "pax") else ["--exclude=long-*", "--exclude=sparse"]), "-cf", "-", "demo-1.0")
        seed("tar", form, plain)
    (top / "same").hardlink_to(top / "data")
    for name, flag in {"gz": "-z", "xz": "-J", "zst": "--zstd", "bz2": "-j"}.items():
        seed("unpack", name, run("tar", "-C", top.parent, "--sort=name", "--exclude=sparse", flag, "-cf", "-", "demo-1.0"))
    for name, flags in {"deflated": ["-9"], "stored": ["-0"], "symlinks": ["-y"]}.items():
        path = work / f"{name}.zip"
        run("zip", "-qrX", *flags, path, "demo-1.0", "-x", "*sparse", cwd=top.parent)
        for target in ["zip", "unpack"]:
            seed(target, name, path.read_bytes())
    hostile = io.BytesIO()
    with tarfile.open(fileobj=hostile, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, link in [("../outside", None), ("/absolute", None), ("a", "../.."), ("a/b", None)]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
            archive.addfile(entry)
    for target in ["tar", "unpack"]:
        seed(target, "hostile", hostile.getvalue())
    control = work / "deb/DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text("Package: demo\nVersion: 1.0\nArchitecture: amd64\nMaintainer: nobody\nDescription: demo\n")
    tree(work / "deb/usr")
    for compression in ["xz", "gzip", "none", "zstd"]:
        package = work / f"{compression}.deb"
        try:
            run("dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", work / "deb", package)
        except subprocess.CalledProcessError:
            continue
        seed("deb", compression, package.read_bytes())
        seed("ar", compression, package.read_bytes())
    run("ar", "rc", work / "library.a", top / "data", top / "bin/run")
    seed("ar", "library", (work / "library.a").read_bytes())


def wheels():
    files = {
        "demo/__init__.py": b"def main():\n    pass\n",
        "demo-1.0.data/scripts/demo-script": b"#!python\nprint(1)\n",
        "demo-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nSummary: a demo\n\nText.\n",
        "demo-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "demo-1.0.dist-info/entry_points.txt": b"[console_scripts]\ndemo = demo:main\n",
    }
    digest = lambda body: base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    record = "".join(f"{name},sha256={digest(body)},{len(body)}\n" for name, body in files.items())
    files["demo-1.0.dist-info/RECORD"] = (record + "demo-1.0.dist-info/RECORD,,\n").encode()
    for name, method in {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}.items():
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", method) as archive:
            for path, body in files.items():
                archive.writestr(zipfile.ZipInfo(path), body, method)
        for target in ["wheel", "python_path", "zip"]:
            seed(target, f"wheel-{name}", packed.getvalue())
    # The decoder's other files are these.
    few = {
        "METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": b"[console_scripts]\ndemo = demo:main\n",
    }
    record = "".join(f"demo-1.0.dist-info/{name},sha256={digest(body)},{len(body)}\n" for name, body in few.items())
    few["RECORD"] = (record + "demo-1.0.dist-info/RECORD,,\n").encode()
    for number, (name, body) in enumerate(few.items()):
        seed("wheel_metadata", name, bytes([number]) + body)
    seed("names", "all", "\n".join([
        "demo-1.0-py3-none-any.whl", "demo-1.0-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "py3-none-any", "1.0rc1.post2.dev3+local.1",
        "1!2.0.0", "v1.0-alpha_1", "usr/share/doc/**", "*.py[co]", "a/../b", "./a//b/", "linux-arm64", "cp311", "cp3.11",
    ]))


def patches(work):
    for side, texts in {"a": {"a": "one\ntwo\nthree\n", "src/b.c": "int main(void)\n{\n\treturn 0;\n}\n"},
                        "b": {"a": "one\n2\nthree", "src/b.c": "int main(void)\n{\n\treturn 1;\n}\n", "new": "new\n"}}.items():
        for name, text in texts.items():
            path = work / "patch" / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    difference = lambda *command: subprocess.run(command, cwd=work / "patch", stdout=subprocess.PIPE, check=False).stdout
    seed("patch", "diff", difference("diff", "-ruN", "a", "b"))
    seed("patch", "git", difference("git", "diff", "--no-index", "a", "b"))
    seed("patch", "rename", "diff --git a/a b/c\nsimilarity index 90%\nrename from a\nrename to c\n--- a/a\n+++ b/c\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n")


def programs(work):
    source = work / "x.c"
    source.write_text("extern int puts(const char *); int shown(void) { return puts(\"x\"); }\n")
    for name, flags in {"library": ["-shared", "-fPIC", "-Wl,-soname,libx.so.1"], "object": ["-c"], "static": ["-shared", "-fPIC", "-nostdlib"]}.items():
        run("gcc", "-Os", "-s", "-Wl,-z,noseparate-code", *flags, "-o", work / name, source)
        seed("elf", name, (work / name).read_bytes())


def indexes():
    package = (
        "Package: demo\nSource: demo (1.0)\nVersion: 1:2.0~rc1-1+b2\nArchitecture: amd64\nMulti-Arch: same\nPre-Depends: libc6 (>= 2.14) | libc\n"
        f"Depends: a:any (<< 3), b [amd64] | c <!x>,\n d\nProvides: e (= 1), f\nFilename: pool/main/d/demo.deb\nSize: 10\nSHA256: {HASH}\n")
    seed("debian_packages", "two", package + "\n" + package.replace("demo", "other"))
    seed("debian_release", "release", (
        "Origin: Debian\nSuite: stable\nCodename: bookworm\nAcquire-By-Hash: yes\nArchitectures: all amd64\nNo-Support-for-Architecture-all: Packages\n"
        f"SHA256:\n {HASH} 100 main/binary-amd64/Packages.xz\n {HASH}     7 main/binary-all/Packages\n"))
    seed("index_json", "page", json.dumps({"meta": {"api-version": "1.1"}, "name": "demo", "files": [
        {"filename": "demo-1.0.tar.gz", "url": "../../f/demo-1.0.tar.gz", "hashes": {"sha256": HASH}, "size": 10, "yanked": False},
        {"filename": "demo-1.0-py3-none-any.whl", "url": "https://files.example/demo-1.0-py3-none-any.whl", "hashes": {}, "yanked": "broken"},
        {"filename": "../x", "url": "javascript:x", "hashes": {}},
    ]}))
    seed("index_html", "page", (
        "<!DOCTYPE html><html><head><base href='https://files.example/x/'><title>Links</title></head><body>\n"
        f"<!-- a comment --><a href=\"demo-1.0.tar.gz#sha256={HASH}\" data-yanked=\"\">demo-1.0.tar.gz</a><br/>\n"
        "<a href=demo%2D1.0-py3-none-any.whl data-requires-python=\"&gt;=3.8&#44;&lt;4\">x</a>\n</body></html>"))
    seed("http_request", "get", "GET /0123456789abcdfghijklmnpqrsvwxyz.narinfo HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: br\r\n\r\n")
    seed("http_request", "head", "\r\nHEAD http://x/nar/y.nar?z HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    seed("http_request", "body", "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc")


def main():
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        store(work)
        derivations()
        archives(work)
        wheels()
        patches(work)
        programs(work)
        indexes()


main()

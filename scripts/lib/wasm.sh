# shellcheck shell=sh
# What is needed to compile for WebAssembly, for the scripts that do (build-filter, test-wasm). They set $root, the
# repository, $target, the target's name, and $library, what is built of the standard library (`std`; for tests `sysroot`, which
# has the crate `test` as well), define `say` and `die`, and then read this file.
#
# After `toolchain`, cargo compiles for the target: with its standard library where the installed toolchain has it; else
# with Debian's rustc-web and a standard library that is built from its source, once, into the cache.
# shellcheck disable=SC2154 # $root, $target and $library

cache=${ASGARD_CACHE:-$root/.asgard/cache}

# Flags meant for native code (-Ctarget-cpu and the like) must not reach a build for WebAssembly.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER 2>/dev/null || true

# Whether the default toolchain has the target's standard library.
has_target() {
    libdir=$(rustc --print target-libdir --target "$target" 2>/dev/null) || return 1
    ls "$libdir"/libstd-*.rlib >/dev/null 2>&1
}

# Installs packages; when it can't, $problem says why.
try_apt_install() {
    if ! command -v apt-get >/dev/null 2>&1; then
        problem='there is no apt-get'
        return 1
    fi
    sudo=
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            problem="root is needed for: apt-get install $*"
            return 1
        fi
        sudo=sudo
    fi
    say "installing $* (apt)"
    for try in 1 2 3; do
        # The package lists may be missing or old; a failed update is not fatal by itself.
        [ "$try" = 1 ] || $sudo apt-get update -q -o DPkg::Lock::Timeout=120 >&2 || true
        if $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            -o DPkg::Lock::Timeout=120 "$@" >&2; then
            return 0
        fi
        sleep 2
    done
    problem="apt-get install $* failed three times, see above"
    return 1
}
apt_install() {
    try_apt_install "$@" || die "this Rust toolchain has no $target; run: rustup target add $target ($problem)"
}

# Debian's compiler; a rustc in /usr/local or in the home folder does not fit its library source.
web=/usr/bin/rustc
web_source() { printf '%s/lib/rustlib/src/rust/library/%s/Cargo.toml' "$("$web" --print sysroot)" "$library"; }
web_ready() {
    [ -x "$web" ] && [ -f "$(web_source)" ] && [ -f /usr/lib/wasm32-wasi/libc.a ]
}

# A linker for WebAssembly: the toolchain's own, or LLVM's.
linker() {
    for toolchain in rustc "$web"; do
        command -v "$toolchain" >/dev/null 2>&1 || continue
        for found in "$("$toolchain" --print sysroot)"/lib/rustlib/*/bin/rust-lld; do
            if [ -x "$found" ]; then
                printf '%s' "$found"
                return 0
            fi
        done
    done
    for found in /usr/bin/wasm-ld /usr/bin/wasm-ld-*; do
        if [ -x "$found" ]; then
            printf '%s' "$found"
            return 0
        fi
    done
    return 1
}

# The standard library for the target, built from Debian's source into a folder of ours: $sysroot.
build_sysroot() {
    sysroot=$cache/wasm-sysroot/$("$web" --version | tr -c 'A-Za-z0-9.\n' '_')/$target
    [ -f "$sysroot/.done" ] && return 0
    say "building the standard library for $target, once (about 30 s)"
    lib=$sysroot/lib/rustlib/$target/lib
    tmp=$sysroot/build
    rm -rf "$sysroot"
    mkdir -p "$lib/self-contained" "$tmp"
    RUSTC=$web RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Cembed-bitcode=yes -Zforce-unstable-if-unmarked' \
        CARGO_PROFILE_RELEASE_PANIC=abort CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo build --quiet --release --no-default-features --features panic-unwind --target "$target" --target-dir "$tmp" \
        --manifest-path "$(web_source)" >&2 ||
        die "the standard library did not compile; see above, or run: rustup target add $target"
    cp "$tmp/$target/release/deps/"*.rlib "$lib/"
    case $target in
        *wasi*)
            cp /usr/lib/wasm32-wasi/libc.a /usr/lib/wasm32-wasi/crt1-command.o \
                /usr/lib/wasm32-wasi/crt1-reactor.o "$lib/self-contained/"
            ;;
    esac
    rm -rf "$tmp"
    touch "$sysroot/.done"
}

# Makes ready what compiles for the target, and says which it is. $flags are for rustc.
toolchain() {
    # cargo's names for the target's settings.
    of=CARGO_TARGET_$(printf '%s' "$target" | tr 'a-z-' 'A-Z_')
    flags=
    if has_target; then
        say "compiling with the toolchain's $target"
    else
        web_ready || apt_install rustc-web rust-web-src wasi-libc
        web_ready || die 'rustc-web, rust-web-src and wasi-libc are installed but incomplete; reinstall them'
        linker >/dev/null || apt_install lld
        ld=$(linker) || die 'no linker for WebAssembly; install the package lld'
        build_sysroot
        say "compiling with Debian's $("$web" --version | cut -d ' ' -f 1,2)"
        flags="--sysroot $sysroot"
        export RUSTC="$web" "${of}_LINKER=$ld"
    fi
    export "${of}_RUSTFLAGS=$flags"
}

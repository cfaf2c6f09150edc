//! The `asgard` command. Everything is in the library.

fn main() -> std::process::ExitCode {
    asgard::commands::main()
}

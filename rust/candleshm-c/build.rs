//! Names the shared library: programs that are linked with it ask the loader for this name, which changes with the ABI.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcandleshm.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,--strip-debug");
}

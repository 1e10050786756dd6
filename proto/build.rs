//! Compiles `proto/*.proto` in pure Rust; no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(protox::compile(["proto/ledger.proto"], ["proto"])?)?;
    tonic_prost_build::configure()
        .extern_path(".tokligence.ledger.v1", "crate::pb")
        .compile_fds(protox::compile(["proto/peer.proto"], ["proto"])?)?;
    Ok(())
}

//! The binary: arguments → configuration → one verb. Everything is in the library.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Options of the allocator, which the Kafka client uses as well: few arenas and small caches of
/// threads, so that threads share what is free, and what a burst leaves behind goes back to the
/// system after half a second. The variable `MALLOC_CONF` overrides each of them.
#[used]
#[unsafe(export_name = "malloc_conf")]
static ALLOCATOR_OPTIONS: &[u8; 85] =
    b"background_thread:true,narenas:2,tcache_max:4096,dirty_decay_ms:500,muzzy_decay_ms:0\0";

fn main() -> std::process::ExitCode {
    partita::cli::main()
}

//! How the C library keeps memory: with `registry/vfs.rs` the only places with unsafe code.

/// Larger pieces are given back to the system when they are freed. Checking a password
/// takes 7 MiB for a moment; glibc would learn from it to keep such pieces for good.
#[cfg(target_env = "gnu")]
const GIVE_BACK_BYTES: i32 = 1 << 20;
/// Heaps that threads spread over. Each keeps some memory that only it can use.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;

/// Makes the process give memory back. To be called before there are threads.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library has no safe way to be told")]
pub fn keep_small() {
    // SAFETY: mallopt only sets numbers of the allocator, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVE_BACK_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// Gives back what was freed in many small pieces: after something rare that took megabytes.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library has no safe way to be told")]
pub fn give_back() {
    // SAFETY: malloc_trim takes no pointer, and locks the heaps that it trims.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// musl gives back what is large by itself.
#[cfg(not(target_env = "gnu"))]
pub fn keep_small() {}

#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

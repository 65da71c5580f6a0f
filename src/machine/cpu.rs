//! What the CPU can that matters here.

/// Instructions that TLS and checksums use where they are there, and whether they are.
pub fn instructions() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    return vec![
        ("AES", std::arch::is_x86_feature_detected!("aes")),
        ("SHA-256", std::arch::is_x86_feature_detected!("sha")),
        ("CRC32C", std::arch::is_x86_feature_detected!("sse4.2")),
    ];
    #[cfg(target_arch = "aarch64")]
    return vec![
        ("AES", std::arch::is_aarch64_feature_detected!("aes")),
        ("SHA-256", std::arch::is_aarch64_feature_detected!("sha2")),
        ("CRC32C", std::arch::is_aarch64_feature_detected!("crc")),
    ];
    // Our libraries use none on 32-bit ARM, whatever the CPU has.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return vec![("AES", false), ("SHA-256", false), ("CRC32C", false)];
}

/// Whether there are instructions for AES: without them ChaCha20 is several times as fast.
pub fn has_aes() -> bool {
    instructions().contains(&("AES", true))
}

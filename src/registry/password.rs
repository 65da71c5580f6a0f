//! Password hashes: argon2id for our own, bcrypt for those an htpasswd file brings.

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, PasswordHash, Version};

use crate::error::{Kind, Result};

/// argon2id with 7 MiB and 5 passes: as strong as OWASP's first choice, and small enough
/// for a board with 512 MiB.
const MEMORY_KIB: u32 = 7 * 1024;
const PASSES: u32 = 5;
/// Dearest bcrypt hash taken: a second or two on a small board.
const BCRYPT_COST_MAX: u32 = 14;

/// A hash of no password. Checking against it costs what checking against a real one
/// does, so that an unknown name takes as long as a wrong password.
const NOBODY: &str =
    "$argon2id$v=19$m=7168,t=5,p=1$bm9ib2R5IGhhcyB0aGlz$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn argon2() -> Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|e| Kind::Internal.from_cause(e))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// A PHC string with a random salt. Takes 7 MiB and tens of milliseconds.
pub fn hash(password: &str) -> Result<String> {
    let hash = argon2()?
        .hash_password(password.as_bytes())
        .map_err(|error| Kind::Internal.from_cause(error.to_string()))?;
    Ok(hash.to_string())
}

/// Whether a password is the one of a stored hash; None stands for a user there is not.
pub fn verify(password: &str, stored: Option<&str>) -> Result<bool> {
    let text = stored.unwrap_or(NOBODY);
    if is_bcrypt(text) {
        return bcrypt::verify(password, text).map_err(|e| Kind::Internal.from_cause(e));
    }
    let parsed = PasswordHash::new(text).map_err(|error| Kind::Internal.from_cause(error.to_string()))?;
    let right = argon2()?.verify_password(password.as_bytes(), &parsed).is_ok();
    Ok(right && stored.is_some())
}

/// Whether this is a bcrypt hash, as `htpasswd -B` writes it.
pub fn is_bcrypt(text: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix))
}

/// Whether a bcrypt hash can be checked, and in bearable time.
pub fn is_usable_bcrypt(text: &str) -> bool {
    let parts = text.parse::<bcrypt::HashParts>();
    // 60 characters in all: two digits of cost, 22 characters of salt and 31 of hash.
    is_bcrypt(text)
        && text.len() == 60
        && parts.is_ok_and(|parts| (4..=BCRYPT_COST_MAX).contains(&parts.get_cost()))
        && text[7..].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_password_passes_and_no_other() {
        let hash = hash("correct horse").expect("hashes");
        assert!(hash.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{hash}");
        assert!(verify("correct horse", Some(&hash)).expect("verifies"));
        assert!(!verify("correct horsf", Some(&hash)).expect("verifies"));
        assert!(!verify("", Some(&hash)).expect("verifies"));
    }

    #[test]
    fn nobody_has_no_password() {
        assert!(!verify("", None).expect("verifies"));
        assert!(!verify("nobody", None).expect("verifies"));
    }

    #[test]
    fn hashes_of_an_htpasswd_file_are_known() {
        let hash = bcrypt::hash("secret", 4).expect("hashes").replacen("$2b$", "$2y$", 1);
        assert!(is_bcrypt(&hash));
        assert!(verify("secret", Some(&hash)).expect("verifies"));
        assert!(!verify("Secret", Some(&hash)).expect("verifies"));
        assert!(!is_bcrypt("{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk="));
        assert!(!is_bcrypt("$apr1$x$y"));
        assert!(is_usable_bcrypt(&hash));
        for bad in [
            hash.replace("$04$", "$99$"),
            hash.replace("$04$", "$31$"),
            hash[..59].to_owned(),
            format!("{}!", &hash[..59]),
        ] {
            assert!(!is_usable_bcrypt(&bad), "{bad}");
        }
    }
}

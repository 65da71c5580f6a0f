//! htpasswd files: all of a file's users, or none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::names::UserName;
use outport_fuzz::Store;
use std::cell::RefCell;

thread_local! {
    static STORE: RefCell<Store> = RefCell::new(Store::new());
}

fuzz_target!(|text: &str| {
    STORE.with_borrow_mut(|store| {
        // Each person is a row; a store full of them is slow.
        if store.registry.users().expect("lists").len() > 200 {
            *store = Store::new();
        }
        let before = store.registry.users().expect("lists").len();
        match store.registry.users_import(text) {
            Ok(imported) => {
                let users = store.registry.users().expect("lists");
                assert_eq!(users.len(), before + imported.added.len());
                for name in imported.added.iter().chain(&imported.changed) {
                    assert!(UserName::parse(name).is_ok());
                    assert!(users.iter().any(|row| row.user.name == *name));
                }
                // A hash that was taken is one that can be checked.
                if let Some(name) = imported.added.first().filter(|_| text.contains("$04$")) {
                    store.registry.user_verify(name, "password").expect("checks");
                }
            }
            Err(error) => {
                outport_fuzz::is_a_refusal(&error);
                assert_eq!(store.registry.users().expect("lists").len(), before);
            }
        }
    });
});

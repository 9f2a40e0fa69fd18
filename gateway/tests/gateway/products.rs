//! Several products, with keys in files.

use std::{fs, path::PathBuf};

use klavi_auth::{Product, sandbox::Sandbox};

use crate::support::{Front, options};

/// A folder that is removed in the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let name = format!("klavi-gateway-{test}-{}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).unwrap();
        folder
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn each_product_has_its_own_token_and_keys() {
    let builder = Sandbox::builder();
    let sandbox = builder
        .customer("a1", "s1")
        .customer("a2", "s2")
        .start()
        .await
        .unwrap();
    let folder = Folder::new("products");
    folder.write("access-key", "a1\n");
    folder.write("secret-key", "s1\n");
    folder.write("payment/management/access-key", "a2");
    folder.write("payment/management/secret-key", "s2");
    let products = "monitor,payment,payment/customer,payment/management";
    let args = ["--keys-dir", folder.path(), "--product", products];
    let keys = options(&args).products().unwrap();
    let at_sandbox =
        |(api, keys): (klavi_auth::KlaviApi, _)| (sandbox.api(api.product().clone()), keys);
    let front = Front::start(keys.into_iter().map(at_sandbox).collect(), &args).await;
    for path in [
        "monitor",
        "payment",
        "payment/customer",
        "payment/management",
    ] {
        let response = front.get(&format!("/{path}/v1/echo")).await;
        assert_eq!(response.status(), 200, "{path}");
    }
    // No product of the gateway's.
    assert_eq!(front.get("/data/v1/echo").await.status(), 401);
    let log = sandbox.log();
    let calls = log.iter().filter(|entry| entry.path().ends_with("/auth"));
    let mut keys: Vec<_> = calls
        .map(|call| {
            (
                call.path().to_owned(),
                String::from_utf8_lossy(call.body()).contains("a2"),
            )
        })
        .collect();
    keys.sort();
    let expected = [
        ("/monitor/v1/auth".to_owned(), false),
        ("/payment/customer/v1/auth".to_owned(), false),
        ("/payment/management/v1/auth".to_owned(), true),
        ("/payment/v1/auth".to_owned(), false),
    ];
    assert_eq!(keys, expected);
    assert!(matches!(
        options(&args).product[3],
        Product::PaymentManagement
    ));
}

#[test]
fn a_missing_key_file_is_named() {
    let folder = Folder::new("missing");
    folder.write("access-key", "a1");
    let error = options(&["--keys-dir", folder.path()])
        .products()
        .unwrap_err();
    let expected = format!("cannot open the key file {}/secret-key: ", folder.path());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

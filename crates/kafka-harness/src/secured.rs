//! A listener that asks for TLS and for a user's password, by SASL PLAIN or SCRAM-SHA-512.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Protects a key that lives as long as a test.
const KEYSTORE_PASSWORD: &str = "changeit";

/// The listener as clients need to know it.
pub struct Secured {
    port: u16,
    keystore: PathBuf,
    certificate: PathBuf,
}

impl Secured {
    /// The one user, the same for both mechanisms.
    pub const USER: &str = "alice";
    pub const PASSWORD: &str = "alice-has-a-secret";

    /// Makes a key and a certificate for 127.0.0.1 in `folder`.
    pub(crate) fn new(folder: &Path, port: u16) -> Secured {
        let secured = Secured {
            port,
            keystore: folder.join("broker.p12"),
            certificate: folder.join("ca.pem"),
        };
        let store = secured.keystore.to_string_lossy();
        let of_store = ["-keystore", &store, "-storepass", KEYSTORE_PASSWORD];
        let mut make = vec!["-genkeypair", "-alias", "broker", "-storetype", "PKCS12"];
        make.extend(["-keyalg", "RSA", "-keysize", "2048", "-validity", "2"]);
        make.extend(["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1"]);
        // It vouches for itself.
        make.extend(["-ext", "bc:critical=ca:true"]);
        make.extend(of_store);
        keytool(&make);
        let certificate = secured.certificate.to_string_lossy();
        let mut export = vec!["-exportcert", "-rfc", "-alias", "broker"];
        export.extend(["-file", &certificate]);
        export.extend(of_store);
        keytool(&export);
        secured
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What clients connect to, `127.0.0.1:PORT`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// PEM file with the certificate to trust.
    pub fn ca_file(&self) -> &Path {
        &self.certificate
    }

    /// The user, as the storage is formatted with it.
    pub(crate) fn scram_user() -> String {
        let (user, password) = (Self::USER, Self::PASSWORD);
        format!("SCRAM-SHA-512=[name={user},password={password}]")
    }

    /// The broker's properties beside its addresses.
    pub(crate) fn properties(&self) -> Vec<(String, String)> {
        let (user, password) = (Self::USER, Self::PASSWORD);
        let module = "org.apache.kafka.common.security";
        let keystore = self.keystore.to_string_lossy();
        let protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL";
        let plain = format!("{module}.plain.PlainLoginModule required user_{user}=\"{password}\";");
        let scram = format!("{module}.scram.ScramLoginModule required;");
        [
            ("listener.security.protocol.map", protocols),
            ("inter.broker.listener.name", "PLAINTEXT"),
            (
                "listener.name.secure.sasl.enabled.mechanisms",
                "PLAIN,SCRAM-SHA-512",
            ),
            ("listener.name.secure.plain.sasl.jaas.config", &plain),
            (
                "listener.name.secure.scram-sha-512.sasl.jaas.config",
                &scram,
            ),
            ("listener.name.secure.ssl.keystore.type", "PKCS12"),
            ("listener.name.secure.ssl.keystore.location", &keystore),
            (
                "listener.name.secure.ssl.keystore.password",
                KEYSTORE_PASSWORD,
            ),
            ("listener.name.secure.ssl.key.password", KEYSTORE_PASSWORD),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }
}

fn keytool(arguments: &[&str]) {
    let output = Command::new("keytool")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("keytool does not run: {error}"));
    assert!(
        output.status.success(),
        "keytool {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

//! How Keycloak is built and run: the same Java arguments for both.

use std::path::Path;

/// Options of `kc.sh build`. A tree that was built with others is built again.
pub(crate) const BUILD_OPTIONS: [&str; 5] = [
    "--db=dev-file",
    "--health-enabled=true",
    "--http-relative-path=/heimdall",
    "--http-management-relative-path=/",
    "--features=resource-indicators,cimd,identity-assertion-jwt",
];

/// What `kc.sh` gives to Java, but for the compiler: C1 alone halves the time to start.
const JAVA_OPTIONS: [&str; 17] = [
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:MetaspaceSize=96M",
    "-XX:MaxMetaspaceSize=256m",
    "-Xms64m",
    "-Xmx512m",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dfile.encoding=UTF-8",
    "-Duser.language=en",
    "-Duser.country=US",
    "-Djava.security.egd=file:/dev/urandom",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "-Dpicocli.disable.closures=true",
    "-Dquarkus-log-max-startup-records=10000",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--enable-native-access=ALL-UNNAMED",
];
const OPENED: [&str; 3] = ["java.util", "java.util.concurrent", "java.security"];

/// Arguments of `java` that run Keycloak's own entry point with this home.
#[must_use]
pub(crate) fn java_arguments(home: &Path) -> Vec<String> {
    let mut args: Vec<String> = JAVA_OPTIONS.map(str::to_owned).into();
    args.extend(OPENED.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")));
    args.push(format!("-Dkc.home.dir={}", home.display()));
    args.push(format!("-Djboss.server.config.dir={}", home.join("conf").display()));
    args.extend(["-cp".to_owned(), home.join("lib/quarkus-run.jar").display().to_string()]);
    args.push("io.quarkus.bootstrap.runner.QuarkusEntryPoint".to_owned());
    args
}

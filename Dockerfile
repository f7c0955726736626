# syntax=docker/dockerfile:1

# Builds Partita with its TLS, SASL and compression from vendored sources, and leaves a small image
# that runs as an ordinary user.

FROM rust:1.95-slim-bookworm AS build
# What librdkafka's own configure and OpenSSL's need.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends make gcc g++ perl bash \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --package partita \
 && install -D target/release/partita /out/partita

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/lib/partita partita
COPY --from=build /out/partita /usr/local/bin/partita
COPY config/partita.yaml /etc/partita/partita.yaml
COPY examples /usr/share/partita/examples
USER partita
# The local cache of run state; it may be lost at any time.
VOLUME /var/lib/partita
WORKDIR /var/lib/partita
EXPOSE 8080
# Liveness only: an instance that still restores its partitions is healthy, but not ready.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["partita", "--config", "/etc/partita/partita.yaml"]
CMD ["serve", "--http", "0.0.0.0:8080", "--data", "/var/lib/partita/state"]

# Builds Fuseboard and puts the program alone into a small image without a shell, run by a user without rights.
#
#   docker build -t fuseboard .
#   docker run --rm -p 4317:4317 -p 4318:4318 fuseboard
#
# It runs the default configuration. The others lie in /etc/fuseboard; any other is mounted:
#
#   docker run … -v "$PWD/my.yaml:/etc/fuseboard/my.yaml:ro" fuseboard --config /etc/fuseboard/my.yaml
#
# A stop takes up to service.shutdown_timeout, 10 s by default, and so does Docker's patience: give it a little more
# with --stop-timeout 15.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# What is C among the dependencies (zstd, mimalloc, ring) needs a compiler and libc's headers, which this image has.
# Benches are not built, but named in Cargo.toml; the default configuration is compiled in.
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY config config
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/fuseboard /usr/local/bin/fuseboard
RUN mkdir /state

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/fuseboard /usr/local/bin/fuseboard
COPY --from=build /src/config /etc/fuseboard
# The one place that is written to: what the default configuration's `file` exporter writes, 60 MB at most. As a volume
# it can be written to even where the rest of the file system can't (--read-only). 65532 is this image's user.
COPY --from=build --chown=65532:65532 /state /var/lib/fuseboard
VOLUME /var/lib/fuseboard
WORKDIR /var/lib/fuseboard
# Within a container, 127.0.0.1 would be reached by nobody.
ENV FUSEBOARD_HOST=0.0.0.0 \
    FUSEBOARD_OUTPUT=/var/lib/fuseboard/circuits.jsonl
EXPOSE 4317 4318
ENTRYPOINT ["/usr/local/bin/fuseboard"]

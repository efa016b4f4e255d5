# Both binaries in one small image. Build products stay in the first stage; the second has no
# compiler, and runs as an account without a shell.
#
#     docker build -t countersign .

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bins

# The same Debian as above, so that the C library fits.
FROM debian:bookworm-slim
# ssh-keygen signs for the client verbs; ca-certificates lets agents and clients speak https.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates openssh-client \
    && rm -rf /var/lib/apt/lists/*
# A fixed number, so that files on volumes keep their owner from one image to the next. Empty volumes
# take owner and mode from these folders.
RUN groupadd --system --gid 10001 countersign \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/countersign \
        --shell /usr/sbin/nologin countersign \
    && install -d -o countersign -g countersign -m 0711 /var/lib/countersign \
    && install -d -o countersign -g countersign -m 0700 \
        /var/lib/countersign/ledger /var/lib/countersign/checkpoint /var/lib/countersign/agent
COPY --from=build /build/target/release/countersign /build/target/release/countersign-agent \
    /build/target/release/countersign-verify /usr/local/bin/
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/countersign/
USER countersign
WORKDIR /var/lib/countersign
EXPOSE 7070
ENTRYPOINT ["countersign"]
CMD ["--help"]

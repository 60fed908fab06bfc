# The command `repair` in a small image, run by a user without rights.
#
#   docker build -t repair .                                  # lakes of files, SQL, sources over HTTP
#   docker build -t repair --build-arg FEATURES=aws .         # with S3 and Athena
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" repair run workflow.yaml

FROM rust:1.95.0-slim-trixie AS build
# The TLS library and SQLite are written in C.
RUN apt-get update && apt-get install --yes --no-install-recommends cmake g++ make && rm -rf /var/lib/apt/lists/*
# The compiler of the image, so that none is fetched for the sake of rust-toolchain.toml.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /source
COPY . .
ARG FEATURES=""
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --profile dist -p repair-cli --features "$FEATURES" && cp target/dist/repair /repair

# As old as the image that it was built on, or the C library would not fit.
FROM debian:trixie-slim
# Certificates, for sources over HTTPS and for AWS.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home repair
COPY --from=build /repair /usr/local/bin/repair
USER repair
# Workflows and lakes are mounted here. Whoever runs it must be allowed to write to what is mounted.
WORKDIR /work
ENTRYPOINT ["repair"]
CMD ["--help"]

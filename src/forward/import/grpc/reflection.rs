//! Health checks and reflection: how load balancers and tools like grpcurl find their way.
//!
//! The descriptors are those of Veneur 14.2.0's `forward.proto`, `metric.proto` and
//! `tdigest.proto`, and `google/protobuf/empty.proto`, written down as tables.

use axum::Router;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto,
    ServiceDescriptorProto,
};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder;

/// Name of the service.
pub(super) const SERVICE: &str = "forwardrpc.Forward";

/// The health checks, and how to say that this node is about to end.
pub(super) fn health() -> (Router, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    (Router::new().route_service("/grpc.health.v1.Health/{method}", health), reporter)
}

/// What describes the services.
pub(super) fn reflection() -> Router {
    let builder = || {
        Builder::configure()
            .register_file_descriptor_set(FileDescriptorSet { file: files() })
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Both are built from constants: whether they build is what the test asks.
    let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) else {
        return Router::new();
    };
    Router::new()
        .route_service("/grpc.reflection.v1.ServerReflection/{method}", v1)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{method}", v1alpha)
}

fn files() -> Vec<FileDescriptorProto> {
    use Type::{Bytes, Double, Enum, Int64, Message, String};
    let empty = file("google/protobuf/empty.proto", "google.protobuf", &[]);
    let digest = file("tdigest/tdigest.proto", "tdigest", &[]);
    let metric = file("samplers/metricpb/metric.proto", "metricpb", &["tdigest/tdigest.proto"]);
    let imports = ["samplers/metricpb/metric.proto", "google/protobuf/empty.proto"];
    let forward = file("forwardrpc/forward.proto", "forwardrpc", &imports);
    let value =
        |field: FieldDescriptorProto| FieldDescriptorProto { oneof_index: Some(0), ..field };
    vec![
        FileDescriptorProto { message_type: vec![message("Empty", [])], ..empty },
        FileDescriptorProto {
            message_type: vec![
                message(
                    "MergingDigestData",
                    [
                        repeated(field("main_centroids", 1, Message, ".tdigest.Centroid")),
                        field("compression", 2, Double, ""),
                        field("min", 3, Double, ""),
                        field("max", 4, Double, ""),
                        field("reciprocalSum", 5, Double, ""),
                    ],
                ),
                message(
                    "Centroid",
                    [
                        field("mean", 1, Double, ""),
                        field("weight", 2, Double, ""),
                        repeated(field("samples", 3, Double, "")),
                    ],
                ),
            ],
            ..digest
        },
        FileDescriptorProto {
            message_type: vec![
                DescriptorProto {
                    oneof_decl: vec![OneofDescriptorProto {
                        name: Some("value".to_owned()),
                        ..OneofDescriptorProto::default()
                    }],
                    ..message(
                        "Metric",
                        [
                            field("name", 1, String, ""),
                            repeated(field("tags", 2, String, "")),
                            field("type", 3, Enum, ".metricpb.Type"),
                            value(field("counter", 5, Message, ".metricpb.CounterValue")),
                            value(field("gauge", 6, Message, ".metricpb.GaugeValue")),
                            value(field("histogram", 7, Message, ".metricpb.HistogramValue")),
                            value(field("set", 8, Message, ".metricpb.SetValue")),
                            field("scope", 9, Enum, ".metricpb.Scope"),
                        ],
                    )
                },
                message("CounterValue", [field("value", 1, Int64, "")]),
                message("GaugeValue", [field("value", 1, Double, "")]),
                message(
                    "HistogramValue",
                    [field("t_digest", 1, Message, ".tdigest.MergingDigestData")],
                ),
                message("SetValue", [field("hyper_log_log", 1, Bytes, "")]),
            ],
            enum_type: vec![
                enumeration("Type", &["Counter", "Gauge", "Histogram", "Set", "Timer"]),
                enumeration("Scope", &["Mixed", "Local", "Global"]),
            ],
            ..metric
        },
        FileDescriptorProto {
            message_type: vec![message(
                "MetricList",
                [repeated(field("metrics", 1, Message, ".metricpb.Metric"))],
            )],
            service: vec![ServiceDescriptorProto {
                name: Some("Forward".to_owned()),
                method: vec![
                    method("SendMetrics", ".forwardrpc.MetricList", false),
                    method("SendMetricsV2", ".metricpb.Metric", true),
                ],
                options: None,
            }],
            ..forward
        },
    ]
}

fn file(name: &str, package: &str, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: imports.iter().map(|&import| import.to_owned()).collect(),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

fn message<const N: usize>(name: &str, fields: [FieldDescriptorProto; N]) -> DescriptorProto {
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.to_vec(),
        ..DescriptorProto::default()
    }
}

/// `type_name` is that of a message or enumeration, or empty.
fn field(name: &str, number: i32, kind: Type, type_name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        type_name: (!type_name.is_empty()).then(|| type_name.to_owned()),
        ..FieldDescriptorProto::default()
    }
}

fn repeated(field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(Label::Repeated.into()), ..field }
}

fn enumeration(name: &str, values: &[&str]) -> EnumDescriptorProto {
    let value = |(number, &name): (i32, &&str)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        options: None,
    };
    EnumDescriptorProto {
        name: Some(name.to_owned()),
        value: (0..).zip(values).map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}

fn method(name: &str, input: &str, is_stream: bool) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(input.to_owned()),
        output_type: Some(".google.protobuf.Empty".to_owned()),
        client_streaming: Some(is_stream),
        ..MethodDescriptorProto::default()
    }
}

import com.google.protobuf.ByteString;
import inference.GRPCInferenceServiceGrpc;
import inference.ModelInferRequest;
import inference.ModelInferResponse;
import io.grpc.ClientInterceptor;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.MetadataUtils;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.concurrent.TimeUnit;
import tensorflow.DataType;
import tensorflow.TensorProto;
import tensorflow.TensorShapeProto;
import tensorflow.serving.ModelSpec;
import tensorflow.serving.PredictRequest;
import tensorflow.serving.PredictResponse;
import tensorflow.serving.PredictionServiceGrpc;

/** Asks the model {@code half} over gRPC, TensorFlow Serving's and V2's; {@code grpc.sh} builds and runs it. */
public class Grpc {
    private static final Metadata.Key<String> CODE = Metadata.Key.of("tidemill-code", Metadata.ASCII_STRING_MARSHALLER);

    public static void main(String[] arguments) throws Exception {
        String address = System.getenv().getOrDefault("GRPC_ADDRESS", "127.0.0.1:8001");
        ManagedChannel channel = NettyChannelBuilder.forTarget(address).usePlaintext().intercept(key()).build();
        try {
            System.out.println(predict(channel));
            System.out.println(infer(channel));
            try {
                GRPCInferenceServiceGrpc.newBlockingStub(channel)
                    .modelInfer(ModelInferRequest.newBuilder().setModelName("halve").build());
            } catch (StatusRuntimeException error) {
                System.out.println(error.getStatus().getCode() + " " + error.getTrailers().get(CODE));
            }
        } finally {
            channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
    }

    private static String predict(ManagedChannel channel) {
        TensorProto tensor = TensorProto.newBuilder()
            .setDtype(DataType.DT_FLOAT)
            .setTensorShape(TensorShapeProto.newBuilder().addDim(TensorShapeProto.Dim.newBuilder().setSize(2)))
            .addFloatVal(1.0f).addFloatVal(2.0f)
            .build();
        PredictRequest request = PredictRequest.newBuilder()
            .setModelSpec(ModelSpec.newBuilder().setName("half"))
            .putInputs("input", tensor)
            .build();
        PredictResponse answer = PredictionServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(10, TimeUnit.SECONDS).predict(request);
        return answer.getOutputsOrThrow("output").getFloatValList().toString();
    }

    private static String infer(ManagedChannel channel) {
        ByteBuffer values = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putFloat(1.0f).putFloat(2.0f);
        values.flip();
        ModelInferRequest request = ModelInferRequest.newBuilder()
            .setModelName("half")
            .addInputs(ModelInferRequest.InferInputTensor.newBuilder()
                .setName("input").setDatatype("FP32").addShape(2))
            .addRawInputContents(ByteString.copyFrom(values))
            .build();
        ModelInferResponse answer = GRPCInferenceServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(10, TimeUnit.SECONDS).modelInfer(request);
        ByteBuffer raw = answer.getRawOutputContents(0).asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
        return "[" + raw.getFloat() + ", " + raw.getFloat() + "]";
    }

    private static ClientInterceptor key() {
        Metadata headers = new Metadata();
        String key = System.getenv("TIDEMILL_KEY");
        if (key != null) {
            headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + key);
        }
        return MetadataUtils.newAttachHeadersInterceptor(headers);
    }
}

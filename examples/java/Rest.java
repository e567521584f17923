import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

/** Asks the model {@code half} over REST in both dialects, with the JDK alone: {@code java Rest.java} (11 and later). */
public class Rest {
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    public static void main(String[] arguments) throws Exception {
        System.out.println(ask("/v1/models/half:predict", "{\"instances\": [1.0, 2.0]}"));
        System.out.println(ask("/v2/models/half/infer",
            "{\"inputs\": [{\"name\": \"input\", \"datatype\": \"FP32\", \"shape\": [2], \"data\": [1.0, 2.0]}]}"));
        System.out.println(ask("/v1/models/halve:predict", "{\"instances\": [1.0]}"));
    }

    /** The status and the body; a JSON library of your choice reads it. */
    private static String ask(String path, String body) throws Exception {
        String url = System.getenv().getOrDefault("TIDEMILL_URL", "http://127.0.0.1:8000");
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + path))
            .timeout(Duration.ofSeconds(10))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body));
        String key = System.getenv("TIDEMILL_KEY");
        if (key != null) {
            request.header("Authorization", "Bearer " + key);
        }
        HttpResponse<String> answer = CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofString());
        return answer.statusCode() + " " + answer.body();
    }
}

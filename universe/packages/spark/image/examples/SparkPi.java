import java.util.Collections;
import java.util.concurrent.ThreadLocalRandom;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.SparkSession;

/** SparkPi [PARTS] throws a million darts in each part, and tells how many hit. */
public class SparkPi {
  public static void main(String[] args) {
    int parts = args.length > 0 ? Integer.parseInt(args[0]) : 2;
    SparkSession spark = SparkSession.builder().appName("SparkPi").getOrCreate();
    JavaSparkContext context = new JavaSparkContext(spark.sparkContext());
    int darts = 1000000;
    long hits =
        context
            .parallelize(Collections.nCopies(parts, 0), parts)
            .map(
                ignored -> {
                  ThreadLocalRandom random = ThreadLocalRandom.current();
                  long hit = 0;
                  for (int i = 0; i < darts; i++) {
                    double x = random.nextDouble(), y = random.nextDouble();
                    if (x * x + y * y <= 1) hit++;
                  }
                  return hit;
                })
            .reduce(Long::sum);
    System.out.println("Pi is roughly " + 4.0 * hits / darts / parts);
    spark.stop();
  }
}

import static org.apache.spark.sql.functions.*;

import org.apache.spark.sql.SparkSession;

/** WordsToKafka FILES BROKERS TOPIC counts the words in files, and writes each with its number to a topic. */
public class WordsToKafka {
  public static void main(String[] args) {
    if (args.length != 3) {
      System.err.println("usage: WordsToKafka FILES BROKERS TOPIC");
      System.exit(2);
    }
    SparkSession spark = SparkSession.builder().appName("WordsToKafka").getOrCreate();
    spark
        .read()
        .text(args[0])
        .select(explode(split(col("value"), "\\s+")).as("key"))
        .where("key != ''")
        .groupBy("key")
        .count()
        .selectExpr("key", "cast(count as string) as value")
        .write()
        .format("kafka")
        .option("kafka.bootstrap.servers", args[1])
        .option("topic", args[2])
        .save();
    spark.stop();
  }
}

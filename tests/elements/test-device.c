/* tests/elements/test-device.c: which device an element takes, and what it says of it.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/elements/testtrain.h"

#define ENCODE                                                                           \
  "fluxdatasetsrc location=%s ! fluximagedec ! fluximagecrop width=64 height=64 ! "      \
  "fluxvaeenc name=vae model=%s %s ! "
#define AUTO_IS_CPU "computes on the CPU in F32: device=auto takes the CPU: "

/* What a run said: errors and warnings as "ELEMENT: TEXT", and the lines of elements'
 * debug categories about devices as "CATEGORY: TEXT". */
typedef struct {
  GPtrArray *errors, *warnings;
  GPtrArray *lines; /* with the lock */
  GMutex lock;
} Said;

static void
note_line (GstDebugCategory *category, GstDebugLevel level, const gchar *file,
    const gchar *function, gint line, GObject *object, GstDebugMessage *message,
    gpointer data)
{
  const gchar *text = gst_debug_message_get (message);
  Said *said = data;

  if (level != GST_LEVEL_INFO || strstr (text, "computes on") == NULL)
    return;
  g_mutex_lock (&said->lock);
  g_ptr_array_add (said->lines,
      g_strdup_printf ("%s: %s", gst_debug_category_get_name (category), text));
  g_mutex_unlock (&said->lock);
}

static void
note_message (Said *said, GstMessage *message)
{
  gboolean is_error = GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR;
  g_autoptr (GError) error = NULL;

  if (is_error)
    gst_message_parse_error (message, &error, NULL);
  else
    gst_message_parse_warning (message, &error, NULL);
  /* The source's own, of what stopped downstream. */
  if (strstr (error->message, "Internal") == NULL)
    g_ptr_array_add (is_error ? said->errors : said->warnings,
        g_strdup_printf ("%s: %s", GST_MESSAGE_SRC_NAME (message), error->message));
}

/* Plays a launch line to its end with FLUX_CUDA_MODULE as it is given; NULL: unset. */
static void
play (Said *said, const gchar *module, const gchar *line)
{
  g_autoptr (GError) error = NULL;
  GstElement *pipeline = gst_parse_launch (line, &error);
  GstBus *bus = gst_element_get_bus (pipeline);
  GstMessage *message;
  GstMessageType type;

  g_assert_no_error (error);
  said->errors = g_ptr_array_new_with_free_func (g_free);
  said->warnings = g_ptr_array_new_with_free_func (g_free);
  said->lines = g_ptr_array_new_with_free_func (g_free);
  g_mutex_init (&said->lock);
  if (module != NULL)
    g_setenv ("FLUX_CUDA_MODULE", module, TRUE);
  else
    g_unsetenv ("FLUX_CUDA_MODULE");
  gst_debug_add_log_function (note_line, said, NULL);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  do {
    message = gst_bus_timed_pop_filtered (
        bus, TEST_TIMEOUT, GST_MESSAGE_EOS | GST_MESSAGE_ERROR | GST_MESSAGE_WARNING);
    g_assert_nonnull (message);
    type = GST_MESSAGE_TYPE (message);
    if (type != GST_MESSAGE_EOS)
      note_message (said, message);
    gst_message_unref (message);
  } while (type == GST_MESSAGE_WARNING);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_debug_remove_log_function_by_data (said);
  gst_object_unref (bus);
  gst_object_unref (pipeline);
}

static void
clear (Said *said)
{
  g_ptr_array_unref (said->errors);
  g_ptr_array_unref (said->warnings);
  g_ptr_array_unref (said->lines);
  g_mutex_clear (&said->lock);
}

/* A single text, of this element or category, that holds a part; NULL: there is none. */
static void
expect_one (GPtrArray *texts, const gchar *from, const gchar *part)
{
  for (guint i = 0; i < texts->len; i++)
    g_test_message ("%s", (gchar *)g_ptr_array_index (texts, i));
  g_assert_cmpuint (texts->len, ==, part != NULL ? 1 : 0);
  if (part != NULL) {
    g_assert_true (g_str_has_prefix (g_ptr_array_index (texts, 0), from));
    g_assert_nonnull (strstr (g_ptr_array_index (texts, 0), part));
  }
}

static gchar *
fake (const gchar *name)
{
  return g_strdup_printf ("%s/fake-cuda-%s.so", g_getenv ("FLUX_TEST_MODULES"), name);
}

/* Encodes one picture: line, warning and error of fluxvaeenc with these properties hold
 * these parts, NULL where there is none. */
static void
check (const gchar *module, const gchar *properties, const gchar *line,
    const gchar *warning, const gchar *error)
{
  const gchar *const names[] = {"fox"};
  g_autofree gchar *pictures = test_style_pictures (names, 1);
  g_autofree gchar *launch =
      g_strdup_printf (ENCODE "fakesink", pictures, model, properties);
  Said said;

  play (&said, module, launch);
  expect_one (said.lines, "fluxvaeenc: ", line);
  expect_one (said.warnings, "vae: ", warning);
  expect_one (said.errors, "vae: ", error);
  clear (&said);
  test_remove (pictures);
}

/* Why it is the CPU is in the log only: nobody did anything wrong. */
static void
test_silent_without_a_gpu (void)
{
  g_autofree gchar *none = fake ("none");
  const gchar *module = g_getenv ("FLUX_TEST_CUDA_MODULE");

  check (NULL, "", AUTO_IS_CPU "there is no ../gst-flux/libfxcuda.so", NULL, NULL);
  check ("", "", AUTO_IS_CPU "there is no ../gst-flux/libfxcuda.so", NULL, NULL);
  check (none, "", AUTO_IS_CPU "there is no driver.", NULL, NULL);
  if (module != NULL && !g_file_test ("/proc/driver/nvidia", G_FILE_TEST_EXISTS))
    check (module, "", AUTO_IS_CPU, NULL, NULL);
}

static void
test_module_that_cannot_be_used (void)
{
  g_autofree gchar *version = fake ("version");

  check ("/nowhere/libfxcuda.so", "",
      AUTO_IS_CPU "the CUDA module '/nowhere/libfxcuda.so', which FLUX_CUDA_MODULE names",
      "'/nowhere/libfxcuda.so', which FLUX_CUDA_MODULE names, is not there", NULL);
  check (version, "", AUTO_IS_CPU "the CUDA module '", "build both together", NULL);
  check ("/nowhere/libfxcuda.so", "device=cuda", NULL, NULL,
      "CUDA device 0 cannot be used: the CUDA module '/nowhere/libfxcuda.so', which");
  check ("/nowhere/libfxcuda.so", "compute-dtype=bfloat16", NULL, NULL,
      "no GPU can be used (the CUDA module '/nowhere/libfxcuda.so', which");
  check ("/nowhere/libfxcuda.so", "device=cpu", "computes on the CPU in F32", NULL, NULL);
}

static void
test_gpu (void)
{
  g_autofree gchar *works = fake ("works");

  check (works, "", "computes on cuda:0 ", NULL, NULL);
  check (works, "device=cuda:0", "computes on cuda:0 ", NULL, NULL);
  check (works, "device=cuda:7", NULL, NULL,
      "CUDA device 7 cannot be used: there is no GPU number 7, but one: number 0;");
}

/* Once for each element that computes, in its own category. */
static void
test_each_element (void)
{
  const gchar *const names[] = {"fox", "banana"};
  g_autofree gchar *pictures = test_style_pictures (names, 2);
  gchar *lines[3];
  const gchar *const elements[][2] = {
      {"fluxvaeenc", "fluxembed"}, {"fluxtrainsink"}, {"fluxsamplersrc"}};

  begin ();
  lines[0] = g_strdup_printf (ENCODE
      "fluxembed name=fluxembed text-model=%s max-sequence-length=32 "
      "text-quantization=none ! fakesink",
      pictures, model, "", model);
  lines[1] = g_strdup_printf ("fluxcachesrc location=%s ! fluxtrainsink model=%s "
                              "location=%s max-steps=1",
      cache, model, at ("a.safetensors"));
  lines[2] = g_strdup_printf ("fluxsamplersrc model=%s prompt=x steps=1 num-buffers=2 "
                              "max-sequence-length=32 text-quantization=none ! "
                              "video/x-raw,width=64,height=64 ! fakesink",
      model);
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    Said said;

    play (&said, "/nowhere/libfxcuda.so", lines[i]);
    g_assert_cmpuint (said.errors->len, ==, 0);
    g_assert_cmpuint (said.warnings->len, ==, elements[i][1] != NULL ? 2 : 1);
    g_assert_cmpuint (said.lines->len, ==, said.warnings->len);
    for (guint k = 0; k < said.lines->len; k++) {
      g_test_message ("%s", (gchar *)g_ptr_array_index (said.lines, k));
      g_assert_true (
          g_str_has_prefix (g_ptr_array_index (said.lines, k), elements[i][k]));
    }
    clear (&said);
    g_free (lines[i]);
  }
  end ();
  test_remove (pictures);
}

static void
add_tests (void)
{
  const gchar *const computing[] = {
      "fluxvaeenc", "fluxembed", "fluxtrainsink", "fluxsamplersrc"};

  gst_debug_remove_log_function (gst_debug_log_default);
  for (guint i = 0; i < G_N_ELEMENTS (computing); i++)
    gst_debug_set_threshold_for_name (computing[i], GST_LEVEL_INFO);
  g_test_add_func (
      "/device/auto-is-silent-where-there-is-no-gpu", test_silent_without_a_gpu);
  g_test_add_func (
      "/device/a-module-that-cannot-be-used-is-told", test_module_that_cannot_be_used);
  g_test_add_func ("/device/a-gpu-is-taken", test_gpu);
  g_test_add_func ("/device/each-element-tells-once", test_each_element);
}

int
main (int argc, char **argv)
{
  return test_main (argc, argv, add_tests);
}

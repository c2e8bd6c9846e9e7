/* tests/elements/test-states.c: every element goes up and down, or says why not.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/fx.h"
#include "tests/elements/testgst.h"

static GList *
features (void)
{
  return gst_registry_get_feature_list_by_plugin (gst_registry_get (), "flux");
}

/* The plugin loads everywhere, and offers itself to no autoplugger. */
static void
test_registered (void)
{
  GList *list = features ();
  const gchar *names[] = {"fluxdatasetsrc", "fluximagedec", "fluximagecrop", "fluxvaeenc",
      "fluxembed", "fluxcachesink", "fluxcachesrc", "fluxtrainsink", "fluxsamplersrc",
      "fluxmodelsrc", "fluxlorafuse", "fluxquantize", "fluxmodelsink"};

  g_assert_nonnull (list);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    GstElementFactory *factory = gst_element_factory_find (names[i]);

    g_assert_nonnull (factory);
    gst_object_unref (factory);
  }
  for (GList *l = list; l != NULL; l = l->next)
    g_assert_cmpuint (gst_plugin_feature_get_rank (l->data), ==, GST_RANK_NONE);
  gst_plugin_feature_list_free (list);
}

/* Every property that can be written keeps what it was given, and has its default at
 * first. */
static void
test_defaults (void)
{
  GList *list = features ();

  for (GList *l = list; l != NULL; l = l->next) {
    GstElement *element;
    GParamSpec **specs;
    guint n;

    if (!GST_IS_ELEMENT_FACTORY (l->data))
      continue;
    element = gst_element_factory_create (l->data, NULL);
    specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (element), &n);
    for (guint i = 0; i < n; i++) {
      GValue value = G_VALUE_INIT;

      if (!g_str_has_prefix (g_type_name (specs[i]->owner_type), "GstFlux") ||
          !(specs[i]->flags & G_PARAM_READABLE))
        continue;
      g_value_init (&value, specs[i]->value_type);
      g_object_get_property (G_OBJECT (element), specs[i]->name, &value);
      if (!g_param_value_defaults (specs[i], &value)) {
        g_test_message ("%s.%s", GST_OBJECT_NAME (l->data), specs[i]->name);
        g_test_fail ();
      }
      if (specs[i]->flags & G_PARAM_WRITABLE)
        g_object_set_property (G_OBJECT (element), specs[i]->name, &value);
      g_value_unset (&value);
    }
    g_free (specs);
    gst_object_unref (element);
  }
  gst_plugin_feature_list_free (list);
}

/* Without its settings an element does not reach PAUSED, and says so once. */
static void
test_missing_settings (void)
{
  const gchar *names[] = {"fluxdatasetsrc", "fluxvaeenc", "fluxembed", "fluxcachesink",
      "fluxcachesrc", "fluxtrainsink", "fluxsamplersrc", "fluxmodelsrc", "fluxlorafuse",
      "fluxmodelsink"};

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    GstElement *element = gst_element_factory_make (names[i], NULL);
    GstBus *bus = gst_bus_new ();
    GError *error = NULL;

    gst_element_set_bus (element, bus);
    g_assert_cmpint (
        gst_element_set_state (element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
    g_assert_cmpuint (test_count_errors (bus, &error), ==, 1);
    g_assert_error (error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS);
    g_assert_true (g_str_has_suffix (error->message, "."));
    g_error_free (error);
    gst_element_set_state (element, GST_STATE_NULL);
    gst_element_set_bus (element, NULL);
    gst_object_unref (bus);
    gst_object_unref (element);
  }
}

/* A model folder that is not there is named. */
static void
test_missing_model (void)
{
  const gchar *lines[] = {"fluxvaeenc model=/nowhere/model",
      "fluxembed text-model=/nowhere/model",
      "fluxtrainsink model=/nowhere/model location=x.safetensors",
      "fluxsamplersrc model=/nowhere/model prompt=x",
      "fluxcachesrc location=/nowhere/model", "fluxdatasetsrc location=/nowhere/model"};

  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    GstElement *element = gst_parse_launch (lines[i], NULL);
    GstBus *bus = gst_bus_new ();
    GError *error = NULL;

    gst_element_set_bus (element, bus);
    g_assert_cmpint (
        gst_element_set_state (element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
    g_assert_cmpuint (test_count_errors (bus, &error), ==, 1);
    g_assert_nonnull (strstr (error->message, "/nowhere/model"));
    g_error_free (error);
    gst_element_set_state (element, GST_STATE_NULL);
    gst_element_set_bus (element, NULL);
    gst_object_unref (bus);
    gst_object_unref (element);
  }
}

/* Up to PAUSED (or as far as an element without peers comes) and down, again and again.
 */
static void
test_cycles (void)
{
  gchar *model, *folder;
  gchar *lines[5];

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  lines[0] = g_strdup_printf ("fluxvaeenc model=%s", model);
  lines[1] = g_strdup_printf ("fluxembed text-model=%s", model);
  lines[2] = g_strdup_printf ("fluxcachesink location=%s/cache", folder);
  lines[3] =
      g_strdup_printf ("fluxtrainsink model=%s location=%s/x.safetensors", model, folder);
  lines[4] = g_strdup_printf ("fluxsamplersrc model=%s prompt=x", model);
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    GstElement *element = gst_parse_launch (lines[i], NULL);

    for (guint n = 0; n < 20; n++) {
      g_assert_cmpint (gst_element_set_state (
                           element, n % 2 == 0 ? GST_STATE_READY : GST_STATE_PAUSED),
          !=, GST_STATE_CHANGE_FAILURE);
      g_assert_cmpint (
          gst_element_set_state (element, GST_STATE_NULL), ==, GST_STATE_CHANGE_SUCCESS);
    }
    gst_object_unref (element);
    g_free (lines[i]);
  }
  test_remove (folder);
  g_free (folder);
  g_free (model);
}

/* compute-dtype: by nick, in each element that computes; not what is no type. */
static void
test_compute_dtype (void)
{
  const gchar *names[] = {"fluxvaeenc", "fluxembed", "fluxtrainsink", "fluxsamplersrc"};
  const gchar *nicks[] = {"float32", "bfloat16", "float16", "auto", "int8"};
  const gint types[] = {FX_F32, FX_BF16, FX_F16, FX_N_DTYPES, FX_N_DTYPES};

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    GstElement *element = gst_element_factory_make (names[i], NULL);
    gint value;

    for (guint j = 0; j < G_N_ELEMENTS (nicks); j++) {
      gst_util_set_object_arg (G_OBJECT (element), "compute-dtype", nicks[j]);
      g_object_get (element, "compute-dtype", &value, NULL);
      g_assert_cmpint (value, ==, types[j]);
    }
    gst_object_unref (element);
  }
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/states/registered", test_registered);
  g_test_add_func ("/states/defaults", test_defaults);
  g_test_add_func ("/states/compute-dtype", test_compute_dtype);
  g_test_add_func ("/states/missing-settings", test_missing_settings);
  g_test_add_func ("/states/missing-model", test_missing_model);
  g_test_add_func ("/states/cycles", test_cycles);
  return g_test_run ();
}
